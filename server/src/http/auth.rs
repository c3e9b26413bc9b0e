//! Who is asking, and whether they may.

use super::response::ApiError;
use crate::broker::control::{Actor, ControlReply, ControlRequest};
use crate::broker::snapshot::LoginRow;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hyper::HeaderMap;
use hyper::header;
use std::net::IpAddr;

use super::control::ControlHandle;

/// Credentials longer than this are refused unread.
const CREDENTIALS_SIZE_MAX: usize = 16 << 10; // bytes

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The control socket: whoever could open it is the operator.
    ControlSocket,
    /// A TCP listener.
    Tcp(IpAddr),
}

/// Who asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Principal {
    /// Nobody in particular; only open endpoints see it.
    Anonymous,
    /// The operator on the control socket: may do everything.
    Operator,
    /// A user who has logged in.
    User {
        /// Name.
        name: String,
        /// Tags, also those that grant nothing here.
        tags: Vec<String>,
        /// Virtual hosts in which it has a permission.
        vhosts: Vec<String>,
    },
}

/// What an endpoint asks of its caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing, not even a login.
    Open,
    /// Any tag of management.
    Management,
    /// As `Management`, and a permission in the virtual host of the path, where it exists.
    Vhost,
    /// The tag `monitoring` or `administrator`.
    Monitoring,
    /// The tag `policymaker` or `administrator`, and a permission in the virtual host of the path.
    Policymaker,
    /// The tag `administrator`.
    Administrator,
}

impl Principal {
    /// Finds out who asks. The password is checked by the broker.
    pub(crate) async fn identify(
        control: &ControlHandle,
        origin: Origin,
        headers: &HeaderMap,
    ) -> Result<Principal, ApiError> {
        let address = match origin {
            Origin::ControlSocket => return Ok(Principal::Operator),
            Origin::Tcp(address) => address,
        };
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(ApiError::NoCredentials);
        };
        let (user, password) = basic_credentials(value.as_bytes()).ok_or(ApiError::LoginFailed)?;
        let loopback = address.to_canonical().is_loopback();
        let request = ControlRequest::Authenticate { user, password, loopback };
        let reply = control.ask(request).await?;
        let ControlReply::Login(row) = reply else {
            panic!("a login was answered by {reply:?}");
        };
        let LoginRow { name, tags, vhosts } = row.ok_or(ApiError::LoginFailed)?;
        Ok(Principal::User { name, tags, vhosts })
    }

    /// The name that is written into what it makes.
    pub(crate) fn name(&self) -> &str {
        match self {
            Principal::Anonymous => "",
            Principal::Operator => Actor::Operator.name(),
            Principal::User { name, .. } => name,
        }
    }

    /// On whose behalf the broker is to act.
    pub(crate) fn actor(&self) -> Actor {
        match self {
            Principal::Operator => Actor::Operator,
            Principal::Anonymous => Actor::User(String::new()),
            Principal::User { name, .. } => Actor::User(name.clone()),
        }
    }

    /// Whether it carries one of the tags; the operator carries all.
    fn has_tag(&self, wanted: &[&str]) -> bool {
        match self {
            Principal::Anonymous => false,
            Principal::Operator => true,
            Principal::User { tags, .. } => tags.iter().any(|tag| wanted.contains(&tag.as_str())),
        }
    }

    /// Whether it administers the broker.
    pub(crate) fn is_administrator(&self) -> bool {
        self.has_tag(&["administrator"])
    }

    /// Whether it sees what belongs to others.
    pub(crate) fn is_monitor(&self) -> bool {
        self.has_tag(&["administrator", "monitoring"])
    }

    /// Whether it has a permission in the virtual host.
    pub(crate) fn sees_vhost(&self, vhost: &str) -> bool {
        match self {
            Principal::Anonymous => false,
            Principal::Operator => true,
            Principal::User { vhosts, .. } => vhosts.iter().any(|name| name == vhost),
        }
    }

    /// Refuses who lacks what an endpoint asks for. `vhost` is the one of the path, if it exists.
    pub(crate) fn check(&self, access: Access, vhost: Option<&str>) -> Result<(), ApiError> {
        if access == Access::Open {
            return Ok(());
        }
        if !self.has_tag(&["administrator", "monitoring", "policymaker", "management"]) {
            return Err(ApiError::NotAuthorised("Not management user"));
        }
        let in_vhost = vhost.is_none_or(|vhost| self.sees_vhost(vhost));
        let (allowed, refusal) = match access {
            Access::Open | Access::Management => (true, ""),
            Access::Vhost => (in_vhost, "User not authorised to access virtual host"),
            Access::Monitoring => (self.is_monitor(), "Not monitor user"),
            Access::Policymaker => (
                in_vhost && self.has_tag(&["administrator", "policymaker"]),
                "User not authorised to access object",
            ),
            Access::Administrator => (self.is_administrator(), "Not administrator user"),
        };
        if allowed { Ok(()) } else { Err(ApiError::NotAuthorised(refusal)) }
    }
}

/// The user and password of a `Basic` header.
fn basic_credentials(header: &[u8]) -> Option<(String, String)> {
    if CREDENTIALS_SIZE_MAX < header.len() {
        return None;
    }
    let (scheme, encoded) = header.split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let decoded = String::from_utf8(STANDARD.decode(encoded.trim_ascii()).ok()?).ok()?;
    let (user, password) = decoded.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(tags: &[&str], vhosts: &[&str]) -> Principal {
        let own = |list: &[&str]| list.iter().map(ToString::to_string).collect();
        Principal::User { name: "u".to_owned(), tags: own(tags), vhosts: own(vhosts) }
    }

    #[test]
    fn access_follows_the_tags() {
        use Access::{Administrator, Management, Monitoring, Open, Policymaker, Vhost};
        let check = |who: &Principal, access, expected: Option<&'static str>| {
            let expected = expected.map_or(Ok(()), |text| Err(ApiError::NotAuthorised(text)));
            assert_eq!(who.check(access, Some("/")), expected, "{who:?} {access:?}");
        };
        for access in [Open, Management, Vhost, Monitoring, Policymaker, Administrator] {
            check(&user(&["administrator"], &["/"]), access, None);
            check(&Principal::Operator, access, None);
        }
        let nobody = user(&["custom"], &["/"]);
        check(&nobody, Open, None);
        check(&nobody, Management, Some("Not management user"));
        check(&nobody, Administrator, Some("Not management user"));
        check(&user(&["management"], &["/"]), Vhost, None);
        check(&user(&["management"], &["/"]), Monitoring, Some("Not monitor user"));
        let policymaker = user(&["policymaker"], &["/"]);
        check(&policymaker, Policymaker, None);
        check(&policymaker, Administrator, Some("Not administrator user"));
        let elsewhere = user(&["administrator"], &["other"]);
        check(&elsewhere, Vhost, Some("User not authorised to access virtual host"));
        check(&elsewhere, Policymaker, Some("User not authorised to access object"));
        assert_eq!(elsewhere.check(Vhost, None), Ok(()), "no such virtual host: 404 comes later");
    }

    #[test]
    fn credentials_are_read_or_refused() {
        let check = |header: &str, expected: Option<(&str, &str)>| {
            let expected = expected.map(|(user, pass)| (user.to_owned(), pass.to_owned()));
            assert_eq!(basic_credentials(header.as_bytes()), expected, "{header}");
        };
        check("Basic Z3Vlc3Q6Z3Vlc3Q=", Some(("guest", "guest")));
        check("basic  Z3Vlc3Q6YTpi", Some(("guest", "a:b")));
        check("Basic Z3Vlc3Q=", None);
        check("Bearer Z3Vlc3Q6Z3Vlc3Q=", None);
        check("Basic ***", None);
        check("Basic", None);
        check(&format!("Basic {}", "A".repeat(20_000)), None);
    }
}
