//! What the loop is started with, and what may be changed while it runs.

use std::fmt;
use std::rc::Rc;

use leveret_protocol::session::SessionSettings;

use super::EventLoop;
use crate::broker::alarm::Watermarks;
use crate::broker::auth::AuthSettings;
use crate::broker::node_settings::NodeSettings;
use crate::config::SocketOptions;
use crate::shell::gauge::Gauge;
use crate::shell::supervisor::Supervisor;

/// What the loop is started with besides the broker.
#[derive(Debug)]
pub struct LoopSettings {
    /// What may be changed later.
    pub live: LiveSettings,
    /// Memory and disk.
    pub gauge: Gauge,
    /// Called when SIGHUP came.
    pub reload: Reload,
    /// Who wants to know how we are.
    pub supervisor: Supervisor,
}

/// Settings that may change while the loop runs. Connections keep what they were opened with.
#[derive(Debug)]
pub struct LiveSettings {
    /// For new sessions.
    pub session: SessionSettings,
    /// For accepted sockets.
    pub socket: SocketOptions,
    /// Connections open at once, `None` for no limit.
    pub connections_max: Option<u64>,
    /// Memory and disk are looked at so often at least.
    pub gauge_interval_ms: u64,
    /// Where alarms begin.
    pub watermarks: Watermarks,
    /// How one logs in.
    pub auth: AuthSettings,
    /// Limits of the node, and what new virtual hosts and users begin with.
    pub node: NodeSettings,
}

/// Reads the settings again; `None` when they cannot be.
pub struct Reload(pub Box<dyn FnMut() -> Option<LiveSettings>>);

impl fmt::Debug for Reload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reload")
    }
}

impl EventLoop {
    /// Takes settings over.
    pub(super) fn set_live(&mut self, settings: LiveSettings) {
        let LiveSettings { session, socket, connections_max, .. } = settings;
        self.session_settings = Rc::new(session);
        self.socket_options = socket;
        self.core.connections_max = connections_max;
        self.pressure.set_interval(settings.gauge_interval_ms);
        let (broker, mut ctx) = self.core.call();
        broker.configure_auth(settings.auth);
        broker.configure_node(settings.node);
        broker.set_watermarks(settings.watermarks, &mut ctx);
        self.fulfil_requests();
    }

    /// SIGHUP came.
    pub(super) fn reload(&mut self) {
        self.supervisor.reloading();
        if let Some(settings) = (self.reload.0)() {
            self.set_live(settings);
        }
        self.supervisor.ready();
    }
}
