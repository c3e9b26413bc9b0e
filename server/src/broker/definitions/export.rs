//! Writes definitions in the shape that RabbitMQ 3 and 4 import.
//!
//! Entries are added section by section, in the order of [`Section`]; what RabbitMQ would refuse or
//! pass over (predeclared exchanges, reserved names, policy keys of features that are gone) is left
//! out here.

use super::Section;
use super::arguments::table_to_json;
use crate::broker::binding::BindingDefinition;
use crate::broker::exchange::ExchangeDefinition;
use crate::broker::limits::VhostLimits;
use crate::broker::parameters::{OPERATOR_POLICY, Parameter, VHOST_LIMITS, VHOST_LIMITS_NAME};
use crate::broker::permission::{Access, Permission, TopicPermission};
use crate::broker::policy::{Policy, PolicyKind, keys};
use crate::broker::user::User;
use crate::broker::vhost::VhostDefinition;
use leveret_protocol::field::FieldTable;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

const INFALLIBLE: &str = "a String takes everything";

/// A definitions file being written.
#[derive(Debug)]
pub struct Export {
    out: String,
    /// The section open for entries, if any is.
    section: Option<Section>,
    entries: usize,
    /// Of one virtual host: its entries do not name it.
    of_vhost: bool,
}

impl Export {
    /// The file of a node: every section may follow.
    pub fn of_node(version: &str, cluster_name: &str) -> Export {
        Export::begin(
            &[
                ("rabbit_version", version),
                ("rabbitmq_version", version),
                ("product_name", "RabbitMQ"),
                ("product_version", version),
                ("rabbitmq_definition_format", "cluster"),
                ("original_cluster_name", cluster_name),
            ],
            false,
        )
    }

    /// The file of one virtual host: exchanges, policies, parameters, queues and bindings may
    /// follow.
    pub fn of_vhost(version: &str, vhost: &VhostDefinition) -> Export {
        Export::begin(
            &[
                ("rabbit_version", version),
                ("rabbitmq_version", version),
                ("product_name", "RabbitMQ"),
                ("product_version", version),
                ("rabbitmq_definition_format", "single_virtual_host"),
                ("original_vhost_name", &vhost.name),
                ("description", &vhost.description),
                ("default_queue_type", &vhost.default_queue_type),
            ],
            true,
        )
    }

    fn begin(header: &[(&str, &str)], of_vhost: bool) -> Export {
        let mut out = String::from("{");
        for (key, value) in header.iter().filter(|(_, value)| !value.is_empty()) {
            write!(out, "\"{key}\":{},", Value::from(*value)).expect(INFALLIBLE);
        }
        Export { out, section: None, entries: 0, of_vhost }
    }

    /// Adds a user.
    pub fn user(&mut self, user: &User) {
        self.entry(
            Section::Users,
            &json!({
                "name": user.name,
                "password_hash": user.password.to_base64(),
                "hashing_algorithm": user.password.algorithm().name(),
                "tags": user.tags.iter().collect::<Vec<_>>(),
                "limits": user.limits.to_json(),
            }),
        );
    }

    /// Adds a virtual host.
    pub fn vhost(&mut self, vhost: &VhostDefinition) {
        let mut entry = json!({
            "name": vhost.name,
            "description": vhost.description,
            "tags": vhost.tags,
            "metadata": {"description": vhost.description, "tags": vhost.tags},
        });
        if !vhost.default_queue_type.is_empty() {
            entry["default_queue_type"] = json!(vhost.default_queue_type);
            entry["metadata"]["default_queue_type"] = json!(vhost.default_queue_type);
        }
        if vhost.tracing {
            entry["tracing"] = json!(true);
        }
        if vhost.protected {
            entry["protected_from_deletion"] = json!(true);
        }
        self.entry(Section::Vhosts, &entry);
    }

    /// Adds a permission.
    pub fn permission(&mut self, user: &str, vhost: &str, permission: &Permission) {
        self.entry(
            Section::Permissions,
            &json!({
                "user": user,
                "vhost": vhost,
                "configure": permission.pattern(Access::Configure),
                "write": permission.pattern(Access::Write),
                "read": permission.pattern(Access::Read),
            }),
        );
    }

    /// Adds a topic permission.
    pub fn topic_permission(&mut self, user: &str, vhost: &str, permission: &TopicPermission) {
        self.entry(
            Section::TopicPermissions,
            &json!({
                "user": user,
                "vhost": vhost,
                "exchange": permission.exchange(),
                "write": permission.write(),
                "read": permission.read(),
            }),
        );
    }

    /// Adds a global parameter.
    pub fn global_parameter(&mut self, name: &str, value: &Value) {
        self.entry(Section::GlobalParameters, &json!({"name": name, "value": value}));
    }

    /// Adds a policy, or an operator policy among the parameters. Keys that RabbitMQ 4 refuses are
    /// left out, and so is a policy that has no others.
    pub fn policy(&mut self, vhost: &str, kind: PolicyKind, policy: &Policy) {
        let mut parts = policy.to_json();
        let definition = parts["definition"].as_object_mut().expect("a definition is an object");
        definition.retain(|key, _| !keys::is_obsolete(key));
        if definition.is_empty() {
            return;
        }
        match kind {
            PolicyKind::User => {
                parts.insert("name".to_owned(), policy.name().into());
                self.vhost_entry(Section::Policies, vhost, parts);
            }
            PolicyKind::Operator => {
                let (component, name) = (OPERATOR_POLICY, policy.name());
                let value = &Value::Object(parts);
                self.parameter(Parameter { vhost, component, name, value });
            }
        }
    }

    /// Adds the limits of a virtual host that has any, among the parameters.
    pub fn vhost_limits(&mut self, vhost: &str, limits: VhostLimits) {
        let value = &Value::Object(limits.to_json());
        if value != &json!({}) {
            let (component, name) = (VHOST_LIMITS, VHOST_LIMITS_NAME);
            self.parameter(Parameter { vhost, component, name, value });
        }
    }

    /// Adds a runtime parameter.
    pub fn parameter(&mut self, parameter: Parameter<'_>) {
        // Named even in the file of one virtual host, as RabbitMQ does.
        let Parameter { vhost, component, name, value } = parameter;
        let entry = json!({"value": value, "vhost": vhost, "component": component, "name": name});
        self.entry(Section::Parameters, &entry);
    }

    /// Adds an exchange, unless it is predeclared.
    pub fn exchange(&mut self, vhost: &str, exchange: &ExchangeDefinition) {
        if exchange.name.is_empty() || exchange.name.starts_with("amq.") {
            return;
        }
        let entry = object([
            ("name", json!(exchange.name)),
            ("type", json!(exchange.kind.name())),
            ("durable", json!(exchange.durable)),
            ("auto_delete", json!(exchange.auto_delete)),
            ("internal", json!(exchange.internal)),
            ("arguments", Value::Object(table_to_json(exchange.arguments.as_ref()))),
        ]);
        self.vhost_entry(Section::Exchanges, vhost, entry);
    }

    /// Adds a queue, unless its name is reserved. Exclusive ones are the caller's to leave out.
    pub fn queue(
        &mut self,
        vhost: &str,
        name: &str,
        kind: &str,
        durable: bool,
        auto_delete: bool,
        arguments: FieldTable<'_>,
    ) {
        if name.starts_with("amq.") {
            return;
        }
        let entry = object([
            ("name", json!(name)),
            ("type", json!(kind)),
            ("durable", json!(durable)),
            ("auto_delete", json!(auto_delete)),
            ("arguments", Value::Object(table_to_json(arguments))),
        ]);
        self.vhost_entry(Section::Queues, vhost, entry);
    }

    /// Adds a binding, unless it is the default exchange's or leads to a queue with a reserved
    /// name.
    pub fn binding(&mut self, vhost: &str, binding: &BindingDefinition) {
        let is_reserved = binding.destination_is_queue && binding.destination.starts_with("amq.");
        if binding.source.is_empty() || is_reserved {
            return;
        }
        let destination_type = if binding.destination_is_queue { "queue" } else { "exchange" };
        let entry = object([
            ("source", json!(binding.source)),
            ("destination", json!(binding.destination)),
            ("destination_type", json!(destination_type)),
            ("routing_key", json!(binding.key)),
            ("arguments", Value::Object(table_to_json(binding.arguments.as_ref()))),
        ]);
        self.vhost_entry(Section::Bindings, vhost, entry);
    }

    /// The finished file: sections without entries are empty lists.
    pub fn finish(mut self) -> String {
        self.open_until(None);
        self.out.push('}');
        self.out
    }

    fn vhost_entry(&mut self, section: Section, vhost: &str, mut entry: Map<String, Value>) {
        if !self.of_vhost {
            entry.insert("vhost".to_owned(), vhost.into());
        }
        self.entry(section, &Value::Object(entry));
    }

    fn entry(&mut self, section: Section, entry: &Value) {
        assert!(section.is_of_vhost() || !self.of_vhost, "the file is of one virtual host");
        if self.section != Some(section) {
            self.open_until(Some(section));
        }
        if 0 < self.entries {
            self.out.push(',');
        }
        self.entries += 1;
        self.out.push_str(&entry.to_string());
    }

    /// Closes the open section and writes those in between as empty lists, then opens `next`.
    fn open_until(&mut self, next: Option<Section>) {
        let passed = self.section.map_or(0, |open| 1 + open as usize);
        let upto = next.map_or(Section::ALL.len(), |next| next as usize);
        assert!(passed <= upto, "sections come in order");
        if self.section.is_some() {
            self.out.push(']');
        }
        let mut first = self.section.is_none();
        let between = Section::ALL[passed..upto].iter();
        for section in between.filter(|section| section.is_of_vhost() || !self.of_vhost) {
            let comma = if first { "" } else { "," };
            write!(self.out, "{comma}\"{}\":[]", section.name()).expect(INFALLIBLE);
            first = false;
        }
        if let Some(next) = next {
            let comma = if first { "" } else { "," };
            write!(self.out, "{comma}\"{}\":[", next.name()).expect(INFALLIBLE);
        }
        self.section = next;
        self.entries = 0;
    }
}

fn object<const N: usize>(members: [(&str, Value); N]) -> Map<String, Value> {
    members.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{NewPassword, ParseOptions, Plan, Scope, Step};
    use super::*;
    use crate::broker::exchange::ExchangeType;
    use crate::broker::limits::Limit;
    use crate::broker::policy::PolicyParts;
    use crate::broker::user::password::{HashingAlgorithm, PasswordHash};
    use crate::broker::user::{Tags, User};
    use leveret_protocol::field::{FieldTableBuilder, FieldValue, OwnedTable};
    use proptest::prelude::*;

    fn policy(kind: PolicyKind, name: &str, definition: &Value) -> Policy {
        let parts = PolicyParts {
            name,
            pattern: &json!("^q"),
            definition,
            priority: Some(&json!(3)),
            apply_to: Some(&json!("queues")),
        };
        Policy::new(kind, &parts).expect("legal")
    }

    fn plan(text: String) -> Plan {
        Plan::parse(text.into_bytes(), ParseOptions::default()).expect("our own export")
    }

    #[test]
    fn an_empty_export_has_every_list() {
        let text = Export::of_node("4.2.0", "leveret@a").finish();
        let value: Value = serde_json::from_str(&text).expect("json");
        for section in Section::ALL {
            assert_eq!(value[section.name()], json!([]), "{}", section.name());
        }
        assert_eq!(value["rabbit_version"], "4.2.0");
        assert_eq!(value["original_cluster_name"], "leveret@a");
        let text = Export::of_vhost("4.2.0", &VhostDefinition::new("v\"")).finish();
        let value: Value = serde_json::from_str(&text).expect("json");
        assert_eq!(value["original_vhost_name"], "v\"");
        assert_eq!((&value["queues"], value.get("users")), (&json!([]), None));
    }

    #[test]
    fn what_others_refuse_is_left_out() {
        let mut export = Export::of_node("4.2.0", "c");
        let exchange = |name: &str| ExchangeDefinition {
            name: name.into(),
            kind: ExchangeType::Topic,
            durable: true,
            auto_delete: false,
            internal: false,
            arguments: OwnedTable::default(),
            user: "".into(),
        };
        export.exchange("/", &exchange(""));
        export.exchange("/", &exchange("amq.topic"));
        let mirrored = json!({"ha-mode": "all", "max-length": 1});
        export.policy("/", PolicyKind::User, &policy(PolicyKind::User, "both", &mirrored));
        let mirrored = json!({"ha-mode": "all"});
        export.policy("/", PolicyKind::User, &policy(PolicyKind::User, "gone", &mirrored));
        export.vhost_limits("/", VhostLimits::default());
        export.queue("/", "amq.gen-1", "classic", false, false, FieldTable::EMPTY);
        let binding = |source: &str, destination: &str| BindingDefinition {
            source: source.into(),
            destination: destination.into(),
            destination_is_queue: true,
            key: "k".into(),
            arguments: OwnedTable::default(),
        };
        export.binding("/", &binding("", "q"));
        export.binding("/", &binding("x", "amq.gen-1"));
        let plan = plan(export.finish());
        let steps: Vec<_> = plan.steps().collect();
        let [Step::Policy { policy, .. }] = steps.as_slice() else { panic!("{steps:?}") };
        assert_eq!(Value::Object(policy.definition().clone()), json!({"max-length": 1}));
    }

    #[test]
    fn the_file_of_a_vhost_can_go_to_another() {
        let mut export = Export::of_vhost("4.2.0", &VhostDefinition::new("a"));
        let cap = policy(PolicyKind::Operator, "cap", &json!({"max-length": 1}));
        export.policy("a", PolicyKind::Operator, &cap);
        export.queue("a", "q", "classic", true, false, FieldTable::EMPTY);
        let text = export.finish();
        assert!(!text.contains(r#""name":"q","vhost""#) && !text.contains("\"users\""), "{text}");
        let options = ParseOptions { scope: Scope::Vhost("b".into()), ..ParseOptions::default() };
        let plan = Plan::parse(text.into(), options).expect("our own export");
        for step in plan.steps() {
            let (Step::Queue { vhost, .. } | Step::Policy { vhost, .. }) = step else {
                panic!("{step:?}")
            };
            assert_eq!(&*vhost, "b");
        }
    }

    fn names() -> impl Strategy<Value = String> {
        "[a-zé/.{}\"'\\\\ -]{1,12}".prop_filter("reserved", |name| !name.starts_with("amq."))
    }

    fn tables() -> impl Strategy<Value = OwnedTable> {
        proptest::collection::btree_map("x-[a-z]{1,8}", any::<i64>(), 0..4).prop_map(|pairs| {
            let mut table = FieldTableBuilder::new();
            for (key, value) in pairs {
                table.insert(key, FieldValue::I64(value));
            }
            table.build()
        })
    }

    fn users() -> impl Strategy<Value = User> {
        let algorithm = prop_oneof![
            Just(HashingAlgorithm::Sha256),
            Just(HashingAlgorithm::Sha512),
            Just(HashingAlgorithm::Md5)
        ];
        let tags = proptest::collection::vec("[a-z]{1,9}", 0..4);
        let limit = proptest::option::of(-1..99_i64);
        (names(), algorithm, any::<[u8; 4]>(), names(), tags, limit).prop_map(
            |(name, algorithm, salt, password, tags, limit)| User {
                name: name.into(),
                password: PasswordHash::new(algorithm, salt, &password),
                tags: Tags::new(tags.iter().map(String::as_str)).expect("few"),
                limits: crate::broker::limits::UserLimits {
                    max_channels: limit.map_or(Limit::NONE, Limit::new),
                    ..<_>::default()
                },
            },
        )
    }

    /// The steps that make exactly these things.
    #[derive(Clone, Debug)]
    struct World {
        users: Vec<User>,
        vhost: String,
        exchanges: Vec<(String, OwnedTable)>,
        queues: Vec<(String, bool, OwnedTable)>,
    }

    fn worlds() -> impl Strategy<Value = World> {
        (
            proptest::collection::vec(users(), 0..4),
            names(),
            proptest::collection::vec((names(), tables()), 0..4),
            proptest::collection::vec((names(), any::<bool>(), tables()), 0..4),
        )
            .prop_map(|(users, vhost, exchanges, queues)| World {
                users,
                vhost,
                exchanges,
                queues,
            })
    }

    impl World {
        /// The world as steps, and the export of the same things.
        fn both(&self) -> (Vec<Step>, String) {
            let mut steps = Vec::new();
            let mut export = Export::of_node("4.2.0", "c");
            let vhost: &str = &self.vhost;
            for user in &self.users {
                export.user(user);
                steps.push(Step::User {
                    name: user.name.clone(),
                    password: NewPassword::Hash(user.password.clone()),
                    tags: user.tags.clone(),
                    limits: user.limits,
                });
            }
            for user in &self.users {
                let permission = Permission::new("^q", "", ".*").expect("legal");
                export.permission(&user.name, vhost, &permission);
                let (user, vhost) = (user.name.clone(), vhost.into());
                steps.push(Step::Permission { user, vhost, permission });
            }
            self.topology(&mut steps, &mut export);
            (steps, export.finish())
        }

        fn topology(&self, steps: &mut Vec<Step>, export: &mut Export) {
            let vhost: &str = &self.vhost;
            for (name, arguments) in &self.exchanges {
                let definition = ExchangeDefinition {
                    name: name.as_str().into(),
                    kind: ExchangeType::Headers,
                    durable: true,
                    auto_delete: false,
                    internal: true,
                    arguments: arguments.clone(),
                    user: "".into(),
                };
                export.exchange(vhost, &definition);
                steps.push(Step::Exchange { vhost: vhost.into(), definition });
            }
            let limits = VhostLimits { max_queues: Limit::new(7), ..VhostLimits::default() };
            export.vhost_limits(vhost, limits);
            steps.push(Step::VhostLimits { vhost: vhost.into(), limits });
            for (name, durable, arguments) in &self.queues {
                export.queue(vhost, name, "classic", *durable, true, arguments.as_ref());
                steps.push(Step::Queue {
                    vhost: vhost.into(),
                    name: name.as_str().into(),
                    durable: *durable,
                    auto_delete: true,
                    arguments: arguments.clone(),
                });
            }
            for (name, _, arguments) in &self.queues {
                let definition = BindingDefinition {
                    source: "amq.headers".into(),
                    destination: name.as_str().into(),
                    destination_is_queue: true,
                    key: "é#".into(),
                    arguments: arguments.clone(),
                };
                export.binding(vhost, &definition);
                steps.push(Step::Binding { vhost: vhost.into(), definition });
            }
        }
    }

    proptest! {
        /// Goal: what is exported is imported as it was. Method: random definitions, exported,
        /// parsed, and compared step by step.
        #[test]
        fn exports_come_back_as_they_were(world in worlds()) {
            let (steps, text) = world.both();
            let parsed: Vec<Step> = plan(text).steps().collect();
            prop_assert_eq!(parsed, steps);
        }
    }
}
