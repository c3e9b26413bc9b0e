//! Who may do what: configure, write and read patterns per user and virtual host, and topic
//! permissions.
//!
//! A decision costs two map look-ups and a pattern; channels keep the ones they need most and throw
//! them away when [`Permissions::generation`] has moved.

use super::exception::Exception;
use super::pattern::{Pattern, PatternError};
use super::record::{self, RecordError};
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue, OwnedTable};
use std::collections::BTreeMap;
use std::sync::Arc;

/// The default exchange under the name that patterns know it by.
pub const DEFAULT_EXCHANGE: &str = "amq.default";

/// What is to be done with a queue or exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Declare and delete.
    Configure,
    /// Publish to an exchange; bind a queue or exchange to something.
    Write,
    /// Consume, get and purge; bind something to an exchange.
    Read,
}

impl Access {
    /// The word in refusals.
    pub fn name(self) -> &'static str {
        match self {
            Access::Configure => "configure",
            Access::Write => "write",
            Access::Read => "read",
        }
    }
}

/// What kind of thing a name belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResourceKind {
    /// A queue.
    Queue,
    /// An exchange.
    Exchange,
}

impl ResourceKind {
    /// The word in refusals.
    pub fn name(self) -> &'static str {
        match self {
            ResourceKind::Queue => "queue",
            ResourceKind::Exchange => "exchange",
        }
    }
}

/// A pattern of a permission: as written, and as it is matched.
///
/// The empty pattern permits nothing (`''` is `'^$'`), as on RabbitMQ.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Grant {
    source: Box<str>,
    pattern: Pattern,
}

impl Grant {
    fn new(source: &str, expanded: &str) -> Result<Grant, PatternError> {
        Ok(Grant { source: source.into(), pattern: Pattern::new(effective(expanded))? })
    }

    fn trusted(source: &str, expanded: &str) -> Grant {
        Grant { source: source.into(), pattern: Pattern::trusted(effective(expanded)) }
    }
}

fn effective(source: &str) -> &str {
    if source.is_empty() { "^$" } else { source }
}

/// What a user may do in a virtual host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Permission {
    configure: Grant,
    write: Grant,
    read: Grant,
}

impl Permission {
    /// A permission of three patterns.
    ///
    /// # Errors
    /// The operator's: the first that is no pattern.
    pub fn new(configure: &str, write: &str, read: &str) -> Result<Permission, PatternError> {
        Ok(Permission {
            configure: Grant::new(configure, configure)?,
            write: Grant::new(write, write)?,
            read: Grant::new(read, read)?,
        })
    }

    /// One that [`Permission::new`] accepted before it was stored.
    pub fn trusted(configure: &str, write: &str, read: &str) -> Permission {
        Permission {
            configure: Grant::trusted(configure, configure),
            write: Grant::trusted(write, write),
            read: Grant::trusted(read, read),
        }
    }

    /// Everything.
    pub fn full() -> Permission {
        Permission::trusted(".*", ".*", ".*")
    }

    /// The pattern for `access` as written.
    pub fn pattern(&self, access: Access) -> &str {
        &self.grant(access).source
    }

    /// The permission of `user` in `vhost` as it is stored.
    pub fn to_record(&self, user: &str, vhost: &str) -> OwnedTable {
        FieldTableBuilder::new()
            .with("user", FieldValue::LongStr(user.as_bytes()))
            .with("vhost", FieldValue::LongStr(vhost.as_bytes()))
            .with("configure", FieldValue::LongStr(self.configure.source.as_bytes()))
            .with("write", FieldValue::LongStr(self.write.source.as_bytes()))
            .with("read", FieldValue::LongStr(self.read.source.as_bytes()))
            .build()
    }

    /// The permission that was stored, with its user and virtual host.
    ///
    /// # Errors
    /// Not written by this version.
    pub fn from_record(record: FieldTable<'_>) -> Result<(&str, &str, Permission), RecordError> {
        let text = |field| record::text(record, field);
        let permission = Permission::trusted(text("configure")?, text("write")?, text("read")?);
        Ok((text("user")?, text("vhost")?, permission))
    }

    fn grant(&self, access: Access) -> &Grant {
        match access {
            Access::Configure => &self.configure,
            Access::Write => &self.write,
            Access::Read => &self.read,
        }
    }

    fn permits(&self, access: Access, name: &str) -> bool {
        let name = if name.is_empty() { DEFAULT_EXCHANGE } else { name };
        self.grant(access).pattern.matches(name)
    }
}

/// Which routing keys a user may publish to a topic exchange, and bind to it.
///
/// `{username}` and `{vhost}` in the patterns stand for those names, literally.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicPermission {
    exchange: Box<str>,
    write: Grant,
    read: Grant,
}

impl TopicPermission {
    /// A permission of `user` for `exchange` in `vhost`.
    ///
    /// # Errors
    /// The operator's: the first that is no pattern.
    pub fn new(
        user: &str,
        vhost: &str,
        exchange: &str,
        write: &str,
        read: &str,
    ) -> Result<TopicPermission, PatternError> {
        Ok(TopicPermission {
            exchange: exchange.into(),
            write: Grant::new(write, &expand(write, user, vhost))?,
            read: Grant::new(read, &expand(read, user, vhost))?,
        })
    }

    /// One that [`TopicPermission::new`] accepted before it was stored.
    pub fn trusted(
        user: &str,
        vhost: &str,
        exchange: &str,
        write: &str,
        read: &str,
    ) -> TopicPermission {
        TopicPermission {
            exchange: exchange.into(),
            write: Grant::trusted(write, &expand(write, user, vhost)),
            read: Grant::trusted(read, &expand(read, user, vhost)),
        }
    }

    /// The permission of `user` in `vhost` as it is stored.
    pub fn to_record(&self, user: &str, vhost: &str) -> OwnedTable {
        FieldTableBuilder::new()
            .with("user", FieldValue::LongStr(user.as_bytes()))
            .with("vhost", FieldValue::LongStr(vhost.as_bytes()))
            .with("exchange", FieldValue::LongStr(self.exchange.as_bytes()))
            .with("write", FieldValue::LongStr(self.write.source.as_bytes()))
            .with("read", FieldValue::LongStr(self.read.source.as_bytes()))
            .build()
    }

    /// The permission that was stored, with its user and virtual host.
    ///
    /// # Errors
    /// Not written by this version.
    pub fn from_record(
        record: FieldTable<'_>,
    ) -> Result<(&str, &str, TopicPermission), RecordError> {
        let text = |field| record::text(record, field);
        let (user, vhost) = (text("user")?, text("vhost")?);
        let (exchange, write, read) = (text("exchange")?, text("write")?, text("read")?);
        Ok((user, vhost, TopicPermission::trusted(user, vhost, exchange, write, read)))
    }

    /// The exchange it is for.
    pub fn exchange(&self) -> &str {
        &self.exchange
    }

    /// The pattern of keys to publish, as written.
    pub fn write(&self) -> &str {
        &self.write.source
    }

    /// The pattern of keys to bind, as written.
    pub fn read(&self) -> &str {
        &self.read.source
    }

    /// May `key` be published?
    pub fn permits_write(&self, key: &str) -> bool {
        self.write.pattern.matches(key)
    }

    /// May `key` be bound?
    pub fn permits_read(&self, key: &str) -> bool {
        self.read.pattern.matches(key)
    }
}

/// Puts the names in, quoted: RabbitMQ does not quote, so that a user called `.*` may write
/// anywhere.
fn expand(pattern: &str, user: &str, vhost: &str) -> String {
    let quote = |name: &str| {
        let mut quoted = String::with_capacity(name.len() + 8);
        for c in name.chars() {
            if c.is_ascii_punctuation() {
                quoted.push('\\');
            }
            quoted.push(c);
        }
        quoted
    };
    let mut out = String::with_capacity(pattern.len());
    let mut rest = pattern;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("{username}") {
            out.push_str(&quote(user));
            rest = after;
        } else if let Some(after) = rest.strip_prefix("{vhost}") {
            out.push_str(&quote(vhost));
            rest = after;
        } else {
            out.push('{');
            rest = &rest[1..];
        }
    }
    out.push_str(rest);
    out
}

/// What one user has in one virtual host.
#[derive(Clone, Debug, Default)]
struct Grants {
    permission: Option<Permission>,
    /// By exchange.
    topics: BTreeMap<Box<str>, Arc<TopicPermission>>,
}

impl Grants {
    fn is_empty(&self) -> bool {
        self.permission.is_none() && self.topics.is_empty()
    }
}

/// All permissions of the node.
#[derive(Clone, Debug, Default)]
pub struct Permissions {
    /// By virtual host, then by user.
    vhosts: BTreeMap<Box<str>, BTreeMap<Box<str>, Grants>>,
    generation: u64,
}

impl Permissions {
    /// Moves with every change; a decision made at another generation is void.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Sets what `user` may do in `vhost`, whatever it was before.
    pub fn set(&mut self, user: &str, vhost: &str, permission: Permission) {
        self.entry(user, vhost).permission = Some(permission);
    }

    /// Shuts `user` out of `vhost`; was it in?
    pub fn clear(&mut self, user: &str, vhost: &str) -> bool {
        self.change(user, vhost, |grants| grants.permission.take().is_some())
    }

    /// Sets a topic permission, whatever it was before.
    pub fn set_topic(&mut self, user: &str, vhost: &str, permission: TopicPermission) {
        let topics = &mut self.entry(user, vhost).topics;
        topics.insert(permission.exchange.clone(), Arc::new(permission));
    }

    /// Removes the topic permission for one exchange; was there one?
    pub fn clear_topic(&mut self, user: &str, vhost: &str, exchange: &str) -> bool {
        self.change(user, vhost, |grants| grants.topics.remove(exchange).is_some())
    }

    /// Removes the topic permissions for all exchanges; were there any?
    pub fn clear_topics(&mut self, user: &str, vhost: &str) -> bool {
        self.change(user, vhost, |grants| !std::mem::take(&mut grants.topics).is_empty())
    }

    /// Forgets a user everywhere.
    pub fn remove_user(&mut self, user: &str) {
        self.generation += 1;
        for users in self.vhosts.values_mut() {
            users.remove(user);
        }
        self.vhosts.retain(|_, users| !users.is_empty());
    }

    /// Forgets a virtual host.
    pub fn remove_vhost(&mut self, vhost: &str) {
        self.generation += 1;
        self.vhosts.remove(vhost);
    }

    /// What `user` may do in `vhost`, if it may enter.
    pub fn get(&self, user: &str, vhost: &str) -> Option<&Permission> {
        self.vhosts.get(vhost)?.get(user)?.permission.as_ref()
    }

    /// The topic permission of `user` for `exchange`; none permits every key. A channel keeps it
    /// for as long as the generation stands.
    pub fn topic(&self, user: &str, vhost: &str, exchange: &str) -> Option<&Arc<TopicPermission>> {
        self.vhosts.get(vhost)?.get(user)?.topics.get(exchange)
    }

    /// May `user` enter `vhost`?
    ///
    /// # Errors
    /// 530, closing the connection.
    pub fn check_vhost(&self, user: &str, vhost: &str) -> Result<(), Exception> {
        match self.get(user, vhost) {
            Some(_) => Ok(()),
            None => Err(Exception::not_allowed(format!(
                "access to vhost '{vhost}' refused for user '{user}'"
            ))),
        }
    }

    /// May `user` do this to the queue or exchange called `name`, whether it exists or not?
    ///
    /// # Errors
    /// 403, closing the channel.
    pub fn check(
        &self,
        user: &str,
        vhost: &str,
        access: Access,
        kind: ResourceKind,
        name: &str,
    ) -> Result<(), Exception> {
        if self.get(user, vhost).is_some_and(|granted| granted.permits(access, name)) {
            return Ok(());
        }
        Err(refused(access, &describe(kind, name, vhost), user))
    }

    /// May `user` do anything at all to it? What a passive declaration takes.
    ///
    /// # Errors
    /// 403, closing the channel.
    pub fn check_any(
        &self,
        user: &str,
        vhost: &str,
        kind: ResourceKind,
        name: &str,
    ) -> Result<(), Exception> {
        let all = [Access::Configure, Access::Write, Access::Read];
        let granted = self.get(user, vhost);
        if granted.is_some_and(|granted| all.iter().any(|a| granted.permits(*a, name))) {
            return Ok(());
        }
        Err(refused(Access::Configure, &describe(kind, name, vhost), user))
    }

    /// May `user` publish `key` to a topic exchange (`Write`), or bind it there (`Read`)?
    ///
    /// # Errors
    /// 403, closing the channel.
    pub fn check_topic(
        &self,
        user: &str,
        vhost: &str,
        access: Access,
        exchange: &str,
        key: &str,
    ) -> Result<(), Exception> {
        let Some(topic) = self.topic(user, vhost, exchange) else { return Ok(()) };
        let permitted = match access {
            Access::Configure => true,
            Access::Write => topic.permits_write(key),
            Access::Read => topic.permits_read(key),
        };
        if permitted {
            return Ok(());
        }
        let what =
            format!("topic '{key}' in {}", describe(ResourceKind::Exchange, exchange, vhost));
        Err(refused(access, &what, user))
    }

    /// All permissions as `(user, vhost, permission)`, by virtual host and user.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str, &Permission)> {
        self.grants().filter_map(|(user, vhost, grants)| {
            grants.permission.as_ref().map(|permission| (user, vhost, permission))
        })
    }

    /// All topic permissions as `(user, vhost, permission)`, by virtual host, user and exchange.
    pub fn topics(&self) -> impl Iterator<Item = (&str, &str, &TopicPermission)> {
        self.grants().flat_map(|(user, vhost, grants)| {
            grants.topics.values().map(move |topic| (user, vhost, &**topic))
        })
    }

    fn grants(&self) -> impl Iterator<Item = (&str, &str, &Grants)> {
        self.vhosts.iter().flat_map(|(vhost, users)| {
            users.iter().map(move |(user, grants)| (&**user, &**vhost, grants))
        })
    }

    fn entry(&mut self, user: &str, vhost: &str) -> &mut Grants {
        self.generation += 1;
        self.vhosts.entry(vhost.into()).or_default().entry(user.into()).or_default()
    }

    /// Changes what is there and drops what became empty.
    fn change(&mut self, user: &str, vhost: &str, f: impl FnOnce(&mut Grants) -> bool) -> bool {
        let Some(users) = self.vhosts.get_mut(vhost) else { return false };
        let Some(grants) = users.get_mut(user) else { return false };
        let changed = f(grants);
        if changed {
            self.generation += 1;
        }
        if grants.is_empty() {
            users.remove(user);
        }
        if users.is_empty() {
            self.vhosts.remove(vhost);
        }
        changed
    }
}

fn describe(kind: ResourceKind, name: &str, vhost: &str) -> String {
    let is_default = kind == ResourceKind::Exchange && name.is_empty();
    let name = if is_default { DEFAULT_EXCHANGE } else { name };
    format!("{} '{name}' in vhost '{vhost}'", kind.name())
}

fn refused(access: Access, what: &str, user: &str) -> Exception {
    Exception::refused(format!("{} access to {what} refused for user '{user}'", access.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::{Configure, Read, Write};
    use ResourceKind::{Exchange, Queue};

    fn permissions(configure: &str, write: &str, read: &str) -> Permissions {
        let mut permissions = Permissions::default();
        let permission = Permission::new(configure, write, read).expect("legal");
        permissions.set("ann", "/", permission);
        permissions
    }

    #[test]
    fn each_access_has_its_own_pattern() {
        let permissions = permissions("^c", "^w", "");
        for (access, name, permitted) in [
            (Configure, "c1", true),
            (Configure, "w1", false),
            (Write, "w1", true),
            (Write, "c1", false),
            (Read, "c1", false),
            (Read, "amq.gen-x", false),
        ] {
            let outcome = permissions.check("ann", "/", access, Queue, name);
            assert_eq!(outcome.is_ok(), permitted, "{access:?} {name}");
        }
    }

    #[test]
    fn refusals_read_as_rabbitmq_4() {
        let permissions = permissions("", "", "");
        let text = |access, kind, name| {
            permissions.check("ann", "/", access, kind, name).expect_err("refused").text
        };
        assert_eq!(
            text(Configure, Queue, "q"),
            "configure access to queue 'q' in vhost '/' refused for user 'ann'"
        );
        assert_eq!(
            text(Write, Exchange, ""),
            "write access to exchange 'amq.default' in vhost '/' refused for user 'ann'"
        );
        assert_eq!(
            text(Read, Exchange, "x"),
            "read access to exchange 'x' in vhost '/' refused for user 'ann'"
        );
        assert_eq!(
            permissions.check_vhost("ann", "v").expect_err("refused").text,
            "access to vhost 'v' refused for user 'ann'"
        );
        assert!(permissions.check_vhost("ann", "/").is_ok());
        assert!(permissions.check("bob", "/", Read, Queue, "q").is_err());
        assert!(permissions.check("ann", "v", Read, Queue, "q").is_err());
    }

    #[test]
    fn the_default_exchange_is_amq_default() {
        let permissions = permissions("", r"^amq\.default$", "");
        assert!(permissions.check("ann", "/", Write, Exchange, "").is_ok());
        assert!(permissions.check("ann", "/", Write, Exchange, "amq.direct").is_err());
    }

    #[test]
    fn any_access_opens_a_passive_declaration() {
        let any = |c, w, r| permissions(c, w, r).check_any("ann", "/", Queue, "q").is_ok();
        assert!(any("q", "", ""));
        assert!(any("", "q", ""));
        assert!(any("", "", "q"));
        assert!(!any("", "^x", "p"));
    }

    #[test]
    fn topic_permissions_bind_and_publish_apart() {
        let mut permissions = permissions(".*", ".*", ".*");
        let topic = TopicPermission::new("ann", "/", "t", "^a", "^b").expect("legal");
        permissions.set_topic("ann", "/", topic);
        let text = |access, exchange, key| {
            permissions.check_topic("ann", "/", access, exchange, key).err().map(|e| e.text)
        };
        assert_eq!(text(Write, "t", "a.x"), None);
        assert_eq!(text(Read, "t", "b.x"), None);
        assert_eq!(text(Write, "other", "z"), None);
        assert_eq!(
            text(Write, "t", "b.x").as_deref(),
            Some("write access to topic 'b.x' in exchange 't' in vhost '/' refused for user 'ann'")
        );
        assert!(text(Read, "t", "a").is_some());
        assert!(permissions.check_topic("bob", "/", Write, "t", "z").is_ok());
    }

    #[test]
    fn variables_stand_for_names_and_nothing_else() {
        for (user, pattern, yes, no) in [
            ("ann", r"^{username}\.", "ann.x", "bob.x"),
            ("a.b", r"^{username}$", "a.b", "axb"),
            (".*", r"^{username}$", ".*", "anything"),
            ("ann", r"^{vhost}-{username}$", "v/1-ann", "v/1-bob"),
            ("ann", r"^{client_id}$", "{client_id}", "ann"),
            ("{vhost}", r"^{username}$", "{vhost}", "v/1"),
            ("ann", r"^x{2}{username}$", "xxann", "xann"),
            ("ann", "", "", "ann"),
        ] {
            let topic = TopicPermission::new(user, "v/1", "t", pattern, ".*").expect("legal");
            assert!(topic.permits_write(yes), "{user} {pattern} {yes}");
            assert!(!topic.permits_write(no), "{user} {pattern} {no}");
            assert_eq!(topic.write(), pattern);
        }
    }

    #[test]
    fn every_change_moves_the_generation() {
        let mut permissions = Permissions::default();
        let mut last = permissions.generation();
        let mut moved = |permissions: &Permissions| {
            let before = std::mem::replace(&mut last, permissions.generation());
            before < permissions.generation()
        };
        permissions.set("ann", "/", Permission::full());
        assert!(moved(&permissions));
        permissions.set_topic("ann", "/", TopicPermission::trusted("ann", "/", "t", "a", "b"));
        assert!(moved(&permissions));
        assert!(permissions.clear_topic("ann", "/", "t"));
        assert!(moved(&permissions));
        assert!(!permissions.clear_topic("ann", "/", "t"));
        assert!(!moved(&permissions));
        assert!(permissions.clear("ann", "/"));
        assert!(moved(&permissions));
        assert!(!permissions.clear("ann", "/"));
        permissions.set("ann", "/", Permission::full());
        permissions.set("ann", "v", Permission::full());
        assert!(moved(&permissions));
        permissions.remove_vhost("v");
        assert!(moved(&permissions));
        permissions.remove_user("ann");
        assert!(moved(&permissions));
        assert_eq!(permissions.iter().count(), 0);
        assert!(permissions.vhosts.is_empty(), "nothing is left behind");
    }

    #[test]
    fn listings_are_in_order() {
        let mut permissions = Permissions::default();
        for (user, vhost) in [("b", "/"), ("a", "v"), ("a", "/")] {
            permissions.set(user, vhost, Permission::full());
        }
        permissions.set_topic("t", "/", TopicPermission::trusted("t", "/", "x", "w", "r"));
        let listed: Vec<_> = permissions.iter().map(|(user, vhost, _)| (user, vhost)).collect();
        assert_eq!(listed, [("a", "/"), ("b", "/"), ("a", "v")]);
        let topics: Vec<_> = permissions.topics().map(|(u, v, t)| (u, v, t.exchange())).collect();
        assert_eq!(topics, [("t", "/", "x")]);
        assert_eq!(Permission::full().pattern(Write), ".*");
    }

    #[test]
    fn permissions_survive_storage() {
        let permission = Permission::new("^c", "", "é").expect("legal");
        let record = permission.to_record("ann", "/");
        let (user, vhost, read) = Permission::from_record(record.as_ref()).expect("stored");
        assert_eq!((user, vhost, &read), ("ann", "/", &permission));
        assert!(!read.permits(Write, "x"));
        let topic = TopicPermission::new("ann", "/", "t", "^{username}$", "").expect("legal");
        let record = topic.to_record("ann", "/");
        let (user, vhost, read) = TopicPermission::from_record(record.as_ref()).expect("stored");
        assert_eq!((user, vhost, &read), ("ann", "/", &topic));
        assert!(read.permits_write("ann"));
        assert!(Permission::from_record(FieldTable::EMPTY).is_err());
        assert!(TopicPermission::from_record(FieldTable::EMPTY).is_err());
    }

    #[test]
    fn bad_patterns_are_refused() {
        assert_eq!(Permission::new(".*", "[", "").expect_err("bad").pattern, "[");
        assert!(TopicPermission::new("u", "v", "x", "(", "").is_err());
    }
}
