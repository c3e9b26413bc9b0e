//! Whether clients are let in: what the operator wants of the listeners.

/// What becomes of clients. The shell acts on it; the broker tells it to who asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Service {
    /// They are let in and served.
    #[default]
    Open,
    /// Nobody new is let in; those that are there are served.
    Suspended,
    /// Maintenance: nobody is let in, those that were there were sent away.
    Drained,
    /// As in maintenance; and commands that need a broker at work are refused.
    Stopped,
    /// The process ends.
    Halted,
}

impl Service {
    /// As the API names it.
    pub fn name(self) -> &'static str {
        match self {
            Service::Open => "open",
            Service::Suspended => "suspended",
            Service::Drained => "drained",
            Service::Stopped => "stopped",
            Service::Halted => "halted",
        }
    }

    /// The state of that name.
    pub fn parse(name: &str) -> Option<Service> {
        let all = [
            Service::Open,
            Service::Suspended,
            Service::Drained,
            Service::Stopped,
            Service::Halted,
        ];
        all.into_iter().find(|service| service.name() == name)
    }
}
