//! Logging in: SASL responses, the loopback rule, and the slowing of those who guess.
//!
//! Pure: the peer's address and the time are arguments, and a delay is an answer that the caller
//! must wait out before it sends its reply.

pub mod throttle;

use super::user::password::PasswordHash;
use super::user::{NAME_LEN_MAX, Users};
use leveret_protocol::field::{FieldTable, FieldValue};
use std::collections::BTreeSet;
use std::net::IpAddr;
use throttle::Throttle;

/// A SASL mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mechanism {
    /// `NUL user NUL password`.
    Plain,
    /// A field table without its length, with `LOGIN` and `PASSWORD`.
    Amqplain,
    /// No response: everybody is the configured user.
    Anonymous,
}

impl Mechanism {
    /// The name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Mechanism::Plain => "PLAIN",
            Mechanism::Amqplain => "AMQPLAIN",
            Mechanism::Anonymous => "ANONYMOUS",
        }
    }

    /// The mechanism of that name, which is case sensitive.
    pub fn parse(name: &str) -> Option<Mechanism> {
        [Mechanism::Plain, Mechanism::Amqplain, Mechanism::Anonymous]
            .into_iter()
            .find(|mechanism| mechanism.name() == name)
    }
}

/// Who `ANONYMOUS` logs in as. The password is checked like any other: changing the user's password
/// shuts this door.
#[derive(Clone, PartialEq, Eq)]
pub struct AnonymousLogin {
    /// `anonymous_login_user`.
    pub user: String,
    /// `anonymous_login_pass`.
    pub password: String,
}

impl std::fmt::Debug for AnonymousLogin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "AnonymousLogin({:?})", self.user)
    }
}

/// What the operator configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// Offered to clients, in this order.
    pub mechanisms: Vec<Mechanism>,
    /// Users that may log in from this machine only.
    pub loopback_users: BTreeSet<String>,
    /// Must be there for [`Mechanism::Anonymous`] to be offered.
    pub anonymous: Option<AnonymousLogin>,
}

impl Default for AuthSettings {
    fn default() -> AuthSettings {
        AuthSettings {
            mechanisms: vec![Mechanism::Plain, Mechanism::Amqplain],
            loopback_users: BTreeSet::from(["guest".to_owned()]),
            anonymous: None,
        }
    }
}

impl AuthSettings {
    /// The mechanisms of `connection.start`: `PLAIN AMQPLAIN`.
    pub fn offered(&self) -> String {
        let offered = self.mechanisms.iter().filter(|mechanism| self.offers(**mechanism));
        offered.map(|mechanism| mechanism.name()).collect::<Vec<_>>().join(" ")
    }

    fn offers(&self, mechanism: Mechanism) -> bool {
        let usable = mechanism != Mechanism::Anonymous || self.anonymous.is_some();
        usable && self.mechanisms.contains(&mechanism)
    }
}

/// What came of an attempt to log in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Login {
    /// Who, or why not.
    pub verdict: Verdict,
    /// Milliseconds to wait before the verdict is acted upon, at most
    /// [`throttle::DELAY_MAX_MS`]; 0 but for those who failed often.
    pub delay_ms: u64,
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The user is who it says.
    Accepted {
        /// Name of the user.
        user: Box<str>,
    },
    /// Wrong name or password, or not from here. The client hears `Login was refused`, or nothing.
    Refused {
        /// For the log, control characters escaped; holds no password.
        reason: String,
    },
    /// Not a response of the mechanism, or no mechanism of ours: the client hears nothing.
    Malformed {
        /// For the log.
        reason: String,
    },
}

/// Checks logins and remembers who failed.
#[derive(Clone, Debug, Default)]
pub struct Authenticator {
    settings: AuthSettings,
    throttle: Throttle,
}

/// Name and password taken out of a response.
struct Credentials<'a> {
    user: &'a str,
    password: &'a [u8],
}

impl Authenticator {
    /// An authenticator that has seen nobody.
    pub fn new(settings: AuthSettings) -> Authenticator {
        Authenticator { settings, throttle: Throttle::default() }
    }

    /// What it was configured with.
    pub fn settings(&self) -> &AuthSettings {
        &self.settings
    }

    /// Replaces the configuration, keeping the memory of failures.
    pub fn configure(&mut self, settings: AuthSettings) {
        self.settings = settings;
    }

    /// Judges `response` of `mechanism` from `peer`, which is `None` on a Unix socket.
    pub fn login(
        &mut self,
        users: &Users,
        mechanism: &str,
        response: &[u8],
        peer: Option<IpAddr>,
        now_ms: u64,
    ) -> Login {
        let malformed = |reason: &str| Login {
            verdict: Verdict::Malformed { reason: reason.to_owned() },
            delay_ms: 0,
        };
        let offered = Mechanism::parse(mechanism).filter(|found| self.settings.offers(*found));
        let Some(offered) = offered else {
            let name: String = mechanism.chars().take(32).collect();
            return malformed(&format!("unknown mechanism '{}'", name.escape_debug()));
        };
        let credentials = match offered {
            Mechanism::Plain => plain(response),
            Mechanism::Amqplain => amqplain(response),
            Mechanism::Anonymous => {
                let Some(AnonymousLogin { user, password }) = self.settings.anonymous.clone()
                else {
                    unreachable!("ANONYMOUS is offered only with its user");
                };
                return self.check(users, &user, password.as_bytes(), peer, now_ms);
            }
        };
        match credentials {
            Ok(Credentials { user, password }) => self.check(users, user, password, peer, now_ms),
            Err(reason) => malformed(reason),
        }
    }

    /// Judges a name and a password, as the HTTP API brings them.
    pub fn check(
        &mut self,
        users: &Users,
        user: &str,
        password: &[u8],
        peer: Option<IpAddr>,
        now_ms: u64,
    ) -> Login {
        let found = users.get(user);
        // A name nobody has takes as long as a wrong password.
        let nobody = PasswordHash::default();
        let right = found.map_or(&nobody, |user| &user.password).verify(password);
        let local = peer.is_none_or(|address| address.to_canonical().is_loopback());
        let shown: String = user.chars().take(NAME_LEN_MAX).collect();
        let refusal = if !right {
            Some(format!("user '{}' - invalid credentials", shown.escape_debug()))
        } else if !local && self.settings.loopback_users.contains(user) {
            Some(format!("user '{}' can only connect via localhost", shown.escape_debug()))
        } else {
            None
        };
        match (refusal, found) {
            (Some(reason), _) => {
                let delay_ms = self.throttle.failed(peer, user, now_ms);
                Login { verdict: Verdict::Refused { reason }, delay_ms }
            }
            (None, found) => {
                let user = found.expect("nobody's password is never right").name.clone();
                let delay_ms = self.throttle.delay_ms(peer, &user, now_ms);
                Login { verdict: Verdict::Accepted { user }, delay_ms }
            }
        }
    }
}

/// `NUL user NUL password`, to the end; no authorisation identity, no further NUL.
fn plain(response: &[u8]) -> Result<Credentials<'_>, &'static str> {
    const WRONG: &str = "not a PLAIN response";
    let mut parts = response.split(|byte| *byte == 0);
    let parts = (parts.next(), parts.next(), parts.next(), parts.next());
    let (Some([]), Some(user), Some(password), None) = parts else { return Err(WRONG) };
    Ok(Credentials { user: str::from_utf8(user).map_err(|_| WRONG)?, password })
}

/// A field table without its length. Strings and byte arrays are both taken.
fn amqplain(response: &[u8]) -> Result<Credentials<'_>, &'static str> {
    const WRONG: &str = "not an AMQPLAIN response";
    const MISSING: &str = "AMQPLAIN response without LOGIN or PASSWORD";
    let table = FieldTable::parse(response).map_err(|_| WRONG)?;
    let text = |key| match table.get(key) {
        Some(FieldValue::LongStr(bytes) | FieldValue::Bytes(bytes)) => Ok(bytes),
        _ => Err(MISSING),
    };
    let user = str::from_utf8(text("LOGIN")?).map_err(|_| WRONG)?;
    Ok(Credentials { user, password: text("PASSWORD")? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::limits::UserLimits;
    use crate::broker::user::password::HashingAlgorithm;
    use crate::broker::user::{Tags, User};
    use proptest::prelude::*;

    const LOCAL: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    const REMOTE: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1)));
    const OTHER: Option<IpAddr> = Some(IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 2)));

    fn users() -> Users {
        let mut users = Users::default();
        for (name, password) in [("guest", "guest"), ("ann", "secret"), ("nopass", "")] {
            let hash = if password.is_empty() {
                PasswordHash::default()
            } else {
                PasswordHash::new(HashingAlgorithm::Sha256, [1, 2, 3, 4], password)
            };
            users.put(User {
                name: name.into(),
                password: hash,
                tags: Tags::default(),
                limits: UserLimits::default(),
            });
        }
        users
    }

    fn table(pairs: &[(&str, u8, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        for (key, tag, value) in pairs {
            out.push(u8::try_from(key.len()).expect("short"));
            out.extend_from_slice(key.as_bytes());
            out.push(*tag);
            out.extend_from_slice(&u32::try_from(value.len()).expect("short").to_be_bytes());
            out.extend_from_slice(value);
        }
        out
    }

    /// Which of the three verdicts a response gets from a fresh authenticator.
    fn verdict(mechanism: &str, response: &[u8], peer: Option<IpAddr>) -> &'static str {
        let login = Authenticator::default().login(&users(), mechanism, response, peer, 0);
        assert_eq!(login.delay_ms, 0);
        match login.verdict {
            Verdict::Accepted { .. } => "accepted",
            Verdict::Refused { .. } => "refused",
            Verdict::Malformed { .. } => "malformed",
        }
    }

    #[test]
    fn plain_takes_exactly_two_fields() {
        for (response, expected) in [
            (&b"\0ann\0secret"[..], "accepted"),
            (b"\0ann\0wrong", "refused"),
            (b"\0bob\0secret", "refused"),
            (b"\0nopass\0", "refused"),
            (b"\0\0", "refused"),
            (b"ann\0ann\0secret", "malformed"),
            (b"\0ann\0secret\0", "malformed"),
            (b"\0ann", "malformed"),
            (b"", "malformed"),
            (b"\0\xff\0secret", "malformed"),
        ] {
            assert_eq!(verdict("PLAIN", response, LOCAL), expected, "{response:?}");
        }
    }

    #[test]
    fn amqplain_takes_a_bare_table() {
        let login = |tag| table(&[("LOGIN", tag, b"ann"), ("PASSWORD", tag, b"secret")]);
        assert_eq!(verdict("AMQPLAIN", &login(b'S'), LOCAL), "accepted");
        assert_eq!(verdict("AMQPLAIN", &login(b'x'), LOCAL), "accepted");
        let wrong = table(&[("PASSWORD", b'S', b"no"), ("LOGIN", b'S', b"ann")]);
        assert_eq!(verdict("AMQPLAIN", &wrong, LOCAL), "refused");
        let missing = table(&[("LOGIN", b'S', b"ann")]);
        assert_eq!(verdict("AMQPLAIN", &missing, LOCAL), "malformed");
        assert_eq!(verdict("AMQPLAIN", b"\0ann\0secret", LOCAL), "malformed");
        assert_eq!(verdict("AMQPLAIN", b"", LOCAL), "malformed");
    }

    #[test]
    fn only_offered_mechanisms_are_judged() {
        for mechanism in ["EXTERNAL", "plain", "", "ANONYMOUS", "RABBIT-CR-DEMO"] {
            assert_eq!(verdict(mechanism, b"\0ann\0secret", LOCAL), "malformed", "{mechanism}");
        }
        let mut settings =
            AuthSettings { mechanisms: vec![Mechanism::Anonymous], ..<_>::default() };
        assert_eq!(settings.offered(), "");
        settings.anonymous =
            Some(AnonymousLogin { user: "guest".into(), password: "guest".into() });
        assert_eq!(settings.offered(), "ANONYMOUS");
        assert!(!format!("{settings:?}").contains("password"));
        let mut authenticator = Authenticator::new(settings.clone());
        let login = |authenticator: &mut Authenticator, peer| {
            authenticator.login(&users(), "ANONYMOUS", b"", peer, 0).verdict
        };
        let guest = Verdict::Accepted { user: "guest".into() };
        assert_eq!(login(&mut authenticator, LOCAL), guest);
        assert!(matches!(login(&mut authenticator, REMOTE), Verdict::Refused { .. }));
        settings.anonymous = Some(AnonymousLogin { user: "guest".into(), password: "old".into() });
        authenticator.configure(settings);
        assert!(matches!(login(&mut authenticator, LOCAL), Verdict::Refused { .. }));
        assert_eq!(AuthSettings::default().offered(), "PLAIN AMQPLAIN");
    }

    #[test]
    fn guest_logs_in_from_this_machine_only() {
        let response = b"\0guest\0guest";
        for peer in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            let peer = Some(peer.parse().expect("an address"));
            assert_eq!(verdict("PLAIN", response, peer), "accepted", "{peer:?}");
        }
        assert_eq!(verdict("PLAIN", response, None), "accepted");
        for peer in ["192.0.2.1", "::ffff:192.0.2.1", "2001:db8::1"] {
            let peer = Some(peer.parse().expect("an address"));
            assert_eq!(verdict("PLAIN", response, peer), "refused", "{peer:?}");
            assert_eq!(verdict("PLAIN", b"\0ann\0secret", peer), "accepted", "{peer:?}");
        }
    }

    #[test]
    fn reasons_name_the_user_and_hide_the_password() {
        let mut authenticator = Authenticator::default();
        let mut reason = |response: &[u8], peer| match authenticator
            .login(&users(), "PLAIN", response, peer, 0)
            .verdict
        {
            Verdict::Refused { reason } | Verdict::Malformed { reason } => reason,
            Verdict::Accepted { user } => panic!("{user} was accepted"),
        };
        assert_eq!(reason(b"\0ann\0hunter2", LOCAL), "user 'ann' - invalid credentials");
        assert_eq!(
            reason(b"\0guest\0guest", REMOTE),
            "user 'guest' can only connect via localhost"
        );
        assert_eq!(reason(b"\0a\nb\0hunter2", LOCAL), r"user 'a\nb' - invalid credentials");
        assert!(!reason(b"hunter2", LOCAL).contains("hunter2"));
    }

    /// Goal: guessing is slowed and others are not. Method: one address guesses at `ann`.
    #[test]
    fn failures_slow_their_address_and_user_alone() {
        let mut authenticator = Authenticator::default();
        let users = users();
        let mut login = |response: &[u8], peer, now_ms| {
            authenticator.login(&users, "PLAIN", response, peer, now_ms).delay_ms
        };
        for attempt in 1..10 {
            assert_eq!(login(b"\0ann\0no", REMOTE, attempt), 0, "attempt {attempt}");
        }
        assert!(0 < login(b"\0ann\0no", REMOTE, 10));
        assert!(0 < login(b"\0ann\0secret", REMOTE, 11), "right guesses look like wrong ones");
        assert_eq!(login(b"\0ann\0secret", OTHER, 12), 0);
        assert_eq!(login(b"\0guest\0guest", LOCAL, 12), 0);
        assert_eq!(login(b"\0ann\0secret", REMOTE, 60_012), 0);
    }

    proptest! {
        /// Goal: no response panics or logs in without the password.
        #[test]
        fn junk_never_logs_in(
            mechanism in "PLAIN|AMQPLAIN|ANONYMOUS|[A-Z]{0,8}",
            response in proptest::collection::vec(any::<u8>(), 0..64),
        ) {
            prop_assume!(!response.windows(6).any(|window| window == b"secret"));
            prop_assert_ne!(verdict(&mechanism, &response, REMOTE), "accepted");
        }
    }
}
