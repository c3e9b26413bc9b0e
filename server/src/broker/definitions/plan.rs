//! A definitions file, checked and ready to be applied.

use super::entries::{Decoded, Decoder, Trust};
use super::{
    DefinitionsError, ENTRY_LEN_MAX, FILE_LEN_MAX, ParseOptions, Problem, Scope, Section, Step,
    WARNINGS_MAX,
};
use crate::broker::user::password::HashingAlgorithm;
use serde::Deserializer as _;
use serde::de::{Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// A file whose every entry has been checked. It can be sent to another thread.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    text: String,
    options: ParseOptions,
    /// Where each step's entry is in the text: from and to.
    spans: Vec<(u32, u32)>,
    /// The first step of each section that has any, with the number of its first entry there.
    sections: Vec<(Section, usize)>,
    /// What must be on the node, and the first step that needs it.
    missing: Vec<(Missing, usize)>,
    warnings: Vec<String>,
    skipped: usize,
}

/// Something that entries name and the file does not define.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Missing {
    /// A virtual host.
    Vhost(Box<str>),
    /// A user.
    User(Box<str>),
}

/// The lists of a file, unread.
#[derive(Default)]
struct Lists<'a> {
    by_section: BTreeMap<Section, &'a RawValue>,
    rabbit_version: Option<String>,
}

/// Names defined by the file and names it needs.
#[derive(Default)]
struct Names {
    vhosts: BTreeSet<Box<str>>,
    users: BTreeSet<Box<str>>,
    missing: BTreeMap<Missing, usize>,
}

impl Plan {
    /// Checks a file from its first to its last entry.
    ///
    /// # Errors
    /// The first thing that is wrong with it, with the entry it is wrong in.
    pub fn parse(text: Vec<u8>, mut options: ParseOptions) -> Result<Plan, DefinitionsError> {
        let whole = |problem| DefinitionsError { problem, entry: None, place: None };
        if FILE_LEN_MAX < text.len() {
            let reason = format!("larger than {FILE_LEN_MAX} bytes");
            return Err(whole(Problem::NotJson(reason)));
        }
        let mut text = String::from_utf8(text).map_err(|error| {
            let at = error.utf8_error().valid_up_to();
            whole(Problem::NotJson(format!("no UTF-8 at byte {at}")))
        })?;
        if text.starts_with('\u{feff}') {
            text.drain(..'\u{feff}'.len_utf8());
        }
        let lists: Lists<'_> = serde_json::from_str(&text)
            .map_err(|error| whole(Problem::NotJson(error.to_string())))?;
        if lists.is_older_than_3_6() {
            options.algorithm = HashingAlgorithm::Md5;
        }
        let mut plan = Plan { options, ..Plan::default() };
        let mut names = Names::default();
        for (section, list) in &lists.by_section {
            plan.read_section(*section, list, &text, &mut names)?;
        }
        plan.missing = names.missing.into_iter().collect();
        plan.text = text;
        Ok(plan)
    }

    /// How many steps there are.
    pub fn len(&self) -> usize {
        self.spans.len()
    }

    /// Is there nothing to do?
    pub fn is_empty(&self) -> bool {
        self.spans.is_empty()
    }

    /// Step number `index`, decoded anew.
    pub fn step(&self, index: usize) -> Step {
        let decoder = Decoder { options: &self.options, trust: Trust::Checked };
        match decoder.decode(self.section(index).0, self.raw(index)) {
            Ok(Decoded::Step(step)) => *step,
            Ok(Decoded::Skipped(_)) | Err(_) => unreachable!("it was a step when it was checked"),
        }
    }

    /// All steps in order.
    pub fn steps(&self) -> impl Iterator<Item = Step> + '_ {
        (0..self.len()).map(|index| self.step(index))
    }

    /// Checks that whatever the file names without defining it is on the node.
    ///
    /// # Errors
    /// The first that is not, with an entry that names it.
    pub fn check_references(
        &self,
        mut is_known: impl FnMut(&Missing) -> bool,
    ) -> Result<(), DefinitionsError> {
        let Some((missing, index)) = self.missing.iter().find(|(name, _)| !is_known(name)) else {
            return Ok(());
        };
        let problem = match missing.clone() {
            Missing::Vhost(name) => Problem::NoSuchVhost(Some(name)),
            Missing::User(name) => Problem::NoSuchUser(name),
        };
        Err(self.refuse(*index, problem))
    }

    /// The error that `problem` is with step number `index`.
    pub fn refuse(&self, index: usize, problem: Problem) -> DefinitionsError {
        let (section, first) = self.section(index);
        let (start, _) = self.spans[index];
        error_at(&self.text, section, index - first, start as usize, self.raw(index), problem)
    }

    /// What was passed over, at most [`WARNINGS_MAX`] of them.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// How many entries were passed over.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    fn raw(&self, index: usize) -> &str {
        let (start, end) = self.spans[index];
        &self.text[start as usize..end as usize]
    }

    fn section(&self, index: usize) -> (Section, usize) {
        let at = self.sections.partition_point(|(_, first)| *first <= index);
        self.sections[at - 1]
    }

    fn read_section(
        &mut self,
        section: Section,
        list: &RawValue,
        text: &str,
        names: &mut Names,
    ) -> Result<(), DefinitionsError> {
        let whole = |problem| DefinitionsError { problem, entry: None, place: None };
        if matches!(self.options.scope, Scope::Vhost(_)) && !section.is_of_vhost() {
            return Ok(());
        }
        self.sections.push((section, self.spans.len()));
        let mut refused = None;
        let mut number = 0;
        let mut take = |raw: &str| {
            let start = raw.as_ptr().addr() - text.as_ptr().addr();
            let taken = self.read_entry(section, raw, start, names);
            refused =
                taken.err().map(|problem| error_at(text, section, number, start, raw, problem));
            number += 1;
            refused.is_none()
        };
        let mut json = serde_json::Deserializer::from_str(list.get());
        match json.deserialize_seq(EntryVisitor(&mut take)) {
            Ok(()) => Ok(()),
            Err(_) => Err(refused.unwrap_or_else(|| {
                whole(Problem::Invalid(format!("{} must be a list", section.name())))
            })),
        }
    }

    fn read_entry(
        &mut self,
        section: Section,
        raw: &str,
        start: usize,
        names: &mut Names,
    ) -> Result<(), Problem> {
        if ENTRY_LEN_MAX < raw.len() {
            return Err(Problem::Invalid(format!("longer than {ENTRY_LEN_MAX} bytes")));
        }
        let decoder = Decoder { options: &self.options, trust: Trust::Fresh };
        match decoder.decode(section, raw)? {
            Decoded::Step(step) => {
                names.note(&step, self.spans.len());
                let offset = |at| u32::try_from(at).expect("the file is smaller than that");
                self.spans.push((offset(start), offset(start + raw.len())));
            }
            Decoded::Skipped(what) => {
                self.skipped += 1;
                if self.warnings.len() < WARNINGS_MAX {
                    self.warnings.push(format!("passed over: {what}"));
                }
            }
        }
        Ok(())
    }
}

impl Names {
    /// Remembers what `step`, number `index`, defines and what it needs. Those that define come
    /// first.
    fn note(&mut self, step: &Step, index: usize) {
        let (user, vhost) = match step {
            Step::User { name, .. } => {
                self.users.insert(name.clone());
                (None, None)
            }
            Step::Vhost(vhost) => {
                self.vhosts.insert(vhost.name.clone());
                (None, None)
            }
            Step::Permission { user, vhost, .. } | Step::TopicPermission { user, vhost, .. } => {
                (Some(user), Some(vhost))
            }
            Step::GlobalParameter { .. } => (None, None),
            Step::Exchange { vhost, .. }
            | Step::Policy { vhost, .. }
            | Step::VhostLimits { vhost, .. }
            | Step::Parameter { vhost, .. }
            | Step::Queue { vhost, .. }
            | Step::Binding { vhost, .. } => (None, Some(vhost)),
        };
        if let Some(vhost) = vhost.filter(|name| !self.vhosts.contains(*name)) {
            self.missing.entry(Missing::Vhost(vhost.clone())).or_insert(index);
        }
        if let Some(user) = user.filter(|name| !self.users.contains(*name)) {
            self.missing.entry(Missing::User(user.clone())).or_insert(index);
        }
    }
}

impl Lists<'_> {
    /// Those files do not name the algorithm of their hashes, which is MD5.
    fn is_older_than_3_6(&self) -> bool {
        let Some(version) = &self.rabbit_version else { return false };
        let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
        match (numbers.next().flatten(), numbers.next().flatten()) {
            (Some(major), Some(minor)) => (major, minor) < (3, 6),
            _ => false,
        }
    }
}

impl<'de: 'a, 'a> serde::Deserialize<'de> for Lists<'a> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ListsVisitor)
    }
}

struct ListsVisitor;

impl<'de> Visitor<'de> for ListsVisitor {
    type Value = Lists<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Lists<'de>, A::Error> {
        let mut lists = Lists::default();
        while let Some(key) = map.next_key::<Cow<'de, str>>()? {
            let section = Section::ALL.into_iter().find(|section| section.name() == key);
            if let Some(section) = section {
                // Of a repeated key the last value counts, as for RabbitMQ.
                lists.by_section.insert(section, map.next_value()?);
            } else if key == "rabbit_version" {
                lists.rabbit_version = map.next_value::<Value>()?.as_str().map(ToOwned::to_owned);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        Ok(lists)
    }
}

/// Hands the entries of a list over, unread, for as long as they are wanted.
struct EntryVisitor<'f>(&'f mut dyn FnMut(&str) -> bool);

impl<'de> Visitor<'de> for EntryVisitor<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(raw) = seq.next_element::<&'de RawValue>()? {
            if !(self.0)(raw.get()) {
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

/// An error in entry `number` of a section, which begins at byte `start` of the text.
fn error_at(
    text: &str,
    section: Section,
    number: usize,
    start: usize,
    raw: &str,
    problem: Problem,
) -> DefinitionsError {
    let before = &text[..start];
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = text[line_start..start].chars().count() + 1;
    DefinitionsError {
        problem,
        entry: Some(format!("{}[{number}]{}", section.name(), label(section, raw))),
        place: Some((line, column)),
    }
}

/// What an entry calls itself: ` 'q1' in vhost '/'`.
fn label(section: Section, raw: &str) -> String {
    if ENTRY_LEN_MAX < raw.len() {
        return String::new();
    }
    let entry: Value = serde_json::from_str(raw).unwrap_or_default();
    let text = |key: &str| {
        let text = entry.get(key).and_then(Value::as_str)?;
        Some(text.chars().take(255).collect::<String>().escape_debug().to_string())
    };
    let name = match section {
        Section::Permissions | Section::TopicPermissions => text("user"),
        Section::Bindings => match (text("source"), text("destination")) {
            (Some(source), Some(destination)) => Some(format!("{source}' to '{destination}")),
            _ => None,
        },
        Section::Users
        | Section::Vhosts
        | Section::Exchanges
        | Section::GlobalParameters
        | Section::Policies
        | Section::Parameters
        | Section::Queues => text("name"),
    };
    let name = name.map_or(String::new(), |name| format!(" '{name}'"));
    let vhost = text("vhost").map_or(String::new(), |vhost| format!(" in vhost '{vhost}'"));
    name + &vhost
}

#[cfg(test)]
mod tests {
    use super::super::NewPassword;
    use super::*;
    use crate::broker::policy::PolicyKind;
    use crate::broker::user::CredentialValidator;
    use serde_json::json;

    fn parse(value: &Value) -> Result<Plan, DefinitionsError> {
        Plan::parse(value.to_string().into_bytes(), ParseOptions::default())
    }

    fn refusal(value: &Value) -> String {
        parse(value).expect_err("refused").to_string()
    }

    /// A word per step, to compare orders.
    fn kinds(plan: &Plan) -> Vec<&'static str> {
        let kind = |step: Step| match step {
            Step::User { .. } => "user",
            Step::Vhost(_) => "vhost",
            Step::Permission { .. } => "permission",
            Step::TopicPermission { .. } => "topic",
            Step::Exchange { .. } => "exchange",
            Step::GlobalParameter { .. } => "global",
            Step::Policy { kind: PolicyKind::User, .. } => "policy",
            Step::Policy { kind: PolicyKind::Operator, .. } => "operator",
            Step::VhostLimits { .. } => "limits",
            Step::Parameter { .. } => "parameter",
            Step::Queue { .. } => "queue",
            Step::Binding { .. } => "binding",
        };
        plan.steps().map(kind).collect()
    }

    fn everything() -> Value {
        json!({
            "bindings": [{"source": "orders", "vhost": "shop", "destination": "q",
                "destination_type": "queue", "routing_key": "#", "arguments": {}}],
            "queues": [{"name": "q", "vhost": "shop", "durable": true, "auto_delete": false,
                "arguments": {"x-max-length": 10}, "type": "classic"}],
            "policies": [{"vhost": "shop", "name": "ttl", "pattern": "^q", "apply-to": "queues",
                "definition": {"message-ttl": 300_000}, "priority": 1}],
            "parameters": [
                {"component": "operator_policy", "vhost": "shop", "name": "cap", "value":
                    {"apply-to": "queues", "definition": [["max-length", 5]], "pattern": ".*",
                        "priority": 0}},
                {"component": "vhost-limits", "vhost": "shop", "name": "limits",
                    "value": {"max-queues": 50}},
                {"component": "federation-upstream", "vhost": "shop", "name": "up",
                    "value": {"uri": "amqp://there"}}],
            "global_parameters": [{"name": "cluster_name", "value": "rabbit@a"}],
            "exchanges": [{"name": "orders", "vhost": "shop", "type": "topic", "durable": true,
                "auto_delete": false, "internal": false, "arguments": {}}],
            "topic_permissions": [{"user": "ann", "vhost": "shop", "exchange": "orders",
                "write": "^{username}", "read": ""}],
            "permissions": [{"user": "ann", "vhost": "shop", "configure": "", "write": ".*",
                "read": ".*"}],
            "vhosts": [{"name": "shop", "metadata": {"description": "d", "tags": ["a"]}}],
            "users": [{"name": "ann", "password_hash": "", "tags": "administrator,x",
                "hashing_algorithm": "rabbit_password_hashing_sha512", "limits": []}],
            "rabbit_version": "3.10.8",
            "something_new": {"a": [1, 2, {"b": null}]},
        })
    }

    #[test]
    fn steps_come_in_the_order_they_can_be_applied_in() {
        let plan = parse(&everything()).expect("legal");
        assert_eq!(
            kinds(&plan),
            [
                "user",
                "vhost",
                "permission",
                "exchange",
                "topic",
                "global",
                "policy",
                "operator",
                "limits",
                "parameter",
                "queue",
                "binding"
            ]
        );
        assert_eq!(plan.check_references(|_| false), Ok(()));
        assert_eq!((plan.len(), plan.is_empty(), plan.skipped()), (12, false, 0));
    }

    #[test]
    fn a_vhosts_file_goes_where_it_is_sent() {
        let options =
            ParseOptions { scope: Scope::Vhost("other".into()), ..ParseOptions::default() };
        let plan = Plan::parse(everything().to_string().into(), options).expect("legal");
        let steps = ["exchange", "policy", "operator", "limits", "parameter", "queue", "binding"];
        assert_eq!(kinds(&plan), steps);
        let Step::Queue { vhost, .. } = plan.step(5) else { panic!("{:?}", plan.step(5)) };
        assert_eq!(&*vhost, "other");
        let mut asked = Vec::new();
        let known = plan.check_references(|missing| {
            asked.push(missing.clone());
            true
        });
        assert_eq!((known, asked), (Ok(()), vec![Missing::Vhost("other".into())]));
        let bare = json!({"queues": [{"name": "q", "durable": true, "auto_delete": false}]});
        assert!(refusal(&bare).contains("Virtual host does not exist and is not specified"));
    }

    #[test]
    fn what_the_file_names_must_be_there() {
        let queue = |vhost: &str| json!({"name": "q", "vhost": vhost, "durable": true, "auto_delete": false});
        let plan = parse(&json!({"queues": [queue("/"), queue("nope")]})).expect("legal");
        let error = plan.check_references(|missing| *missing == Missing::Vhost("/".into()));
        let error = error.expect_err("nope is not there");
        assert_eq!(error.reason(), json!(["no_such_vhost", "nope"]));
        assert!(error.to_string().starts_with("queues[1] 'q' in vhost 'nope' (line 1, column "));
        let permission = json!({"permissions": [{"user": "bob", "vhost": "/", "configure": "",
            "write": "", "read": ""}], "vhosts": [{"name": "/"}]});
        let error = parse(&permission).expect("legal").check_references(|_| false);
        assert_eq!(error.expect_err("no bob").reason(), json!(["no_such_user", "bob"]));
    }

    /// Asserts that a file with `entry` alone is refused as `text`, behind the entry's place.
    fn check_refused(section: &str, entry: &Value, text: &str) {
        let found = refusal(&json!({section: [entry]}));
        let (label, reason) = found.split_once(" (line 1, column ").expect("a place");
        let (_, reason) = reason.split_once("): ").expect("a column");
        let found = format!("{label}: {reason}");
        assert!(found.starts_with(text), "{found}\n{text}");
    }

    #[test]
    fn broken_topology_is_refused_by_name() {
        let at = "queues[0] 'q' in vhost '/': ";
        for (change, text) in [
            (json!({"durable": "true"}), "invalid type: string \"true\", expected a boolean"),
            (json!({"auto_delete": null}), "invalid type: null, expected a boolean"),
            (json!({"arguments": {"x": u64::MAX}}), "the integer 18446744073709551615 does not"),
            (json!({"arguments": "x"}), "arguments must be an object"),
        ] {
            let mut queue =
                json!({"name": "q", "vhost": "/", "durable": true, "auto_delete": false});
            for (key, value) in change.as_object().expect("changes") {
                queue[key] = value.clone();
            }
            check_refused("queues", &queue, &format!("{at}{text}"));
        }
        let bare = json!({"name": "q", "vhost": "/"});
        check_refused("queues", &bare, &format!("{at}missing field `durable`"));
        let long = json!({"name": "q".repeat(256), "durable": true, "auto_delete": false});
        check_refused("queues", &long, "queues[0] 'qqq");
        check_refused("queues", &json!("x"), "queues[0]: invalid type: string");
        let exchange =
            json!({"name": "e", "vhost": "/", "type": "zzz", "durable": true, "auto_delete": true});
        let text = "exchanges[0] 'e' in vhost '/': unknown exchange type 'zzz'";
        check_refused("exchanges", &exchange, text);
        let binding = json!({"source": "s", "vhost": "/", "destination": "d",
            "destination_type": "zzz", "routing_key": ""});
        let text = "bindings[0] 's' to 'd' in vhost '/': unknown destination_type 'zzz'";
        check_refused("bindings", &binding, text);
        assert_eq!(refusal(&json!({"queues": {}})), "queues must be a list");
    }

    #[test]
    fn broken_users_and_policies_are_refused_by_name() {
        for (section, entry, text) in [
            ("users", json!({"name": "z"}), "users[0] 'z': tags_not_present"),
            (
                "users",
                json!({"name": "z", "tags": "", "password_hash": "bad!"}),
                "users[0] 'z': the password hash is not base64",
            ),
            ("users", json!({"name": "", "tags": ""}), "users[0] '': invalid name ''"),
            ("users", json!({"name": "z", "tags": [1]}), "users[0] 'z': tags must be a list"),
            (
                "users",
                json!({"name": "z", "tags": "", "limits": {"zz": 1}}),
                "users[0] 'z': Unrecognised terms [{<<\"zz\">>,1}] in user-limits",
            ),
            (
                "permissions",
                json!({"user": "u", "vhost": "/", "configure": "(", "write": "", "read": ""}),
                "permissions[0] 'u' in vhost '/': invalid regular expression '(': missing ) at \
                 offset 1",
            ),
            (
                "policies",
                json!({"name": "p", "vhost": "/", "pattern": "x", "definition": {"expires": 0}}),
                "policies[0] 'p' in vhost '/': 0 is not a valid queue expiry",
            ),
            (
                "parameters",
                json!({"component": "zz", "name": "n", "vhost": "/", "value": 1}),
                "parameters[0] 'n' in vhost '/': component zz not found",
            ),
            (
                "vhosts",
                json!({"name": "v", "default_queue_type": "x"}),
                "vhosts[0] 'v': unknown default_queue_type 'x'",
            ),
        ] {
            check_refused(section, &entry, text);
        }
    }

    #[test]
    fn what_is_no_file_is_refused() {
        for (text, reason) in [
            (&b"nope"[..], "not a definitions file: expected ident"),
            (b"[]", "not a definitions file: invalid type: sequence"),
            (b"", "not a definitions file: EOF"),
            (b"{\"queues\":[}", "not a definitions file: expected value at line 1 column 12"),
            (b"{} x", "not a definitions file: trailing characters"),
            (b"\xff", "not a definitions file: no UTF-8 at byte 0"),
        ] {
            let error = Plan::parse(text.to_vec(), ParseOptions::default()).expect_err("junk");
            assert!(error.to_string().starts_with(reason), "{error}");
            assert_eq!(error.reason(), json!("failed_to_parse_json"));
        }
        let deep = format!("{{\"x\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Plan::parse(deep.into(), ParseOptions::default()).is_ok(), "never looked into");
        let deep = format!("{{\"users\":[{}{}]}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(Plan::parse(deep.into(), ParseOptions::default()).is_err());
        let long = json!({"queues": [{"name": "x".repeat(ENTRY_LEN_MAX)}]});
        assert!(refusal(&long).contains("longer than"));
        let marked = b"\xef\xbb\xbf{\n\"users\":[\n{\"name\":1}]}".to_vec();
        let error = Plan::parse(marked, ParseOptions::default()).expect_err("no name");
        assert_eq!(error.place, Some((3, 1)));
    }

    #[test]
    fn reserved_names_are_passed_over() {
        let queue =
            |name: &str| json!({"name": name, "vhost": "/", "durable": true, "auto_delete": false});
        let file = json!({
            "exchanges": [{"name": "amq.topic", "vhost": "/", "type": "topic", "durable": true,
                "auto_delete": false}],
            "queues": [queue("amq.gen-1"), queue("q")],
            "bindings": [{"source": "", "vhost": "/", "destination": "q",
                "destination_type": "queue", "routing_key": "q"}],
        });
        let plan = parse(&file).expect("legal");
        assert_eq!((kinds(&plan), plan.skipped()), (vec!["queue"], 3));
        assert_eq!(plan.warnings()[1], "passed over: queue 'amq.gen-1' has a reserved name");
        let many: Vec<_> = (0..500).map(|n| queue(&format!("amq.{n}"))).collect();
        let plan = parse(&json!({"queues": many})).expect("legal");
        assert_eq!((plan.warnings().len(), plan.skipped()), (WARNINGS_MAX, 500));
    }

    #[test]
    fn passwords_come_in_four_ways() {
        let password = |version: &str, user: Value| {
            let mut user = user;
            user["name"] = json!("u");
            user["tags"] = json!([]);
            let plan = parse(&json!({"users": [user], "rabbit_version": version})).expect("legal");
            let Step::User { password, .. } = plan.step(0) else { panic!("no user") };
            password
        };
        let sha256 = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        let md5 = "kI3GChNpte2FApYFXScl+0dIluk=";
        for (version, user) in [
            ("3.10.8", json!({"password_hash": sha256})),
            ("4.0.1", json!({"password_hash": sha256, "password": "ignored"})),
            ("", json!({"password_hash": sha256})),
            ("3.5.7", json!({"password_hash": md5})),
            (
                "3.6.0",
                json!({"password_hash": md5,
                "hashing_algorithm": "rabbit_password_hashing_md5"}),
            ),
        ] {
            let NewPassword::Hash(hash) = password(version, user) else { panic!("no hash") };
            assert!(hash.verify(b"test12"), "{version}");
        }
        let plain = password("", json!({"password": "test12"}));
        assert_eq!(plain, NewPassword::Plain(HashingAlgorithm::Sha256, "test12".into()));
        assert!(!format!("{plain:?}").contains("test12"));
        let NewPassword::Hash(none) = password("", json!({})) else { panic!("no hash") };
        assert!(none.as_bytes().is_empty());
    }

    #[test]
    fn weak_passwords_are_refused_without_being_told() {
        let options = ParseOptions {
            validator: CredentialValidator::MinLength(8),
            ..ParseOptions::default()
        };
        let file = json!({"users": [{"name": "u", "password": "hunter2", "tags": ""}]});
        let error = Plan::parse(file.to_string().into(), options).expect_err("too short");
        assert!(error.to_string().ends_with("minimum required password length: 8"), "{error}");
        assert!(!format!("{error:?}").contains("hunter2"));
    }

    #[test]
    fn a_repeated_list_counts_last_and_repeats_are_fine() {
        let text = r#"{"vhosts":[{"name":"a"}],"vhosts":[{"name":"b"},{"name":"b"}]}"#;
        let plan = Plan::parse(text.into(), ParseOptions::default()).expect("legal");
        let names: Vec<_> = plan
            .steps()
            .map(|step| {
                let Step::Vhost(vhost) = step else { panic!("{step:?}") };
                vhost.name
            })
            .collect();
        assert_eq!(names, [Box::from("b"), Box::from("b")]);
    }

    #[test]
    fn vhosts_are_described_where_each_version_writes_it() {
        let vhost = |entry: Value| {
            let step = parse(&json!({"vhosts": [entry]})).expect("legal").step(0);
            let Step::Vhost(vhost) = step else { panic!("{step:?}") };
            vhost
        };
        let old = vhost(json!({"name": "v", "description": "d", "tags": "a, b", "tracing": true}));
        let tags = Some(vec!["a".to_owned(), "b".to_owned()]);
        assert_eq!((old.description.as_deref(), &old.tags), (Some("d"), &tags));
        assert_eq!((old.tracing, old.protected, old.default_queue_type), (Some(true), None, None));
        let new = vhost(json!({"name": "v", "metadata": {"description": "d", "tags": ["a", "b"],
            "default_queue_type": "rabbit_quorum_queue"}, "limits": [],
            "protected_from_deletion": true}));
        assert_eq!((new.description.as_deref(), new.tags), (Some("d"), tags));
        assert_eq!(
            (new.protected, new.default_queue_type.as_deref()),
            (Some(true), Some("quorum"))
        );
        let bare = vhost(json!({"name": "v", "default_queue_type": "undefined"}));
        assert_eq!(bare, super::super::VhostStep { name: "v".into(), ..<_>::default() });
    }

    #[test]
    fn a_queue_of_a_default_type_says_it_in_an_argument() {
        let kind = |entry: Value| {
            let mut entry = entry;
            for (key, value) in [("name", json!("q")), ("vhost", json!("/"))] {
                entry[key] = value;
            }
            (entry["durable"], entry["auto_delete"]) = (json!(true), json!(false));
            let step = parse(&json!({"queues": [entry]})).expect("legal").step(0);
            let Step::Queue { arguments, .. } = step else { panic!("{step:?}") };
            let kind = arguments.as_ref().get("x-queue-type");
            kind.and_then(|kind| kind.as_str().map(ToOwned::to_owned))
        };
        assert_eq!(kind(json!({"type": "quorum"})).as_deref(), Some("quorum"));
        assert_eq!(kind(json!({"type": "classic"})), None);
        assert_eq!(kind(json!({})), None);
        let both = json!({"type": "quorum", "arguments": {"x-queue-type": "classic"}});
        assert_eq!(kind(both).as_deref(), Some("classic"));
    }

    proptest::proptest! {
        /// Goal: no bytes panic, however they are broken. Method: a good file with one byte
        /// changed.
        #[test]
        fn broken_files_never_panic(at in 0..2000_usize, byte: u8) {
            let mut text = everything().to_string().into_bytes();
            let at = at % text.len();
            text[at] = byte;
            if let Ok(plan) = Plan::parse(text, ParseOptions::default()) {
                proptest::prop_assert_eq!(plan.steps().count(), plan.len());
            }
        }
    }
}
