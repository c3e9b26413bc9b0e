//! Runtime parameters (named values per virtual host and component) and global parameters.
//!
//! Policies, operator policies and limits are parameters to RabbitMQ's users; here they have homes
//! of their own, and [`ParameterValue::parse`] says which one a value belongs to. Components of
//! features that are not here (shovel, federation) are checked for their mandatory keys, kept and
//! listed, so that definitions move over and back.

use super::erlang;
use super::limits::VhostLimits;
use super::policy::{Policy, PolicyKind, PolicyParts, ValidationError};
use super::record::{self, RecordError};
use super::user::check_name;
use leveret_protocol::field::{FieldTable, FieldTableBuilder, FieldValue, OwnedTable};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Longest value, in bytes of its JSON: a record must hold it beside its names.
pub const VALUE_LEN_MAX: usize = 512 << 10;
const _: () = assert!(2 * VALUE_LEN_MAX <= leveret_protocol::constants::FIELD_TABLE_SIZE_MAX);

/// The component of operator policies.
pub const OPERATOR_POLICY: &str = "operator_policy";
/// The component of a virtual host's limits.
pub const VHOST_LIMITS: &str = "vhost-limits";
/// The only name in that component.
pub const VHOST_LIMITS_NAME: &str = "limits";

/// Components that are kept and do nothing.
const KEPT: [&str; 3] = ["shovel", "federation-upstream", "federation-upstream-set"];

/// A checked value, and where it belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterValue {
    /// Among the operator policies.
    OperatorPolicy(Policy),
    /// To the virtual host.
    VhostLimits(VhostLimits),
    /// Here.
    Kept(Value),
}

/// Why a parameter cannot be set: the operator's fault. In RabbitMQ's words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParameterError {
    /// Policies are set as policies.
    PolicyNotThisWay,
    /// Everything else.
    Invalid(ValidationError),
}

impl fmt::Display for ParameterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ParameterError::PolicyNotThisWay => {
                f.write_str("policies may not be set using this method")
            }
            ParameterError::Invalid(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for ParameterError {}

impl ParameterValue {
    /// Checks the value of a parameter.
    ///
    /// # Errors
    /// The operator's: no such component, or not a value of it.
    pub fn parse(
        component: &str,
        name: &str,
        value: &Value,
    ) -> Result<ParameterValue, ParameterError> {
        let invalid = |fault: String| ParameterError::Invalid(ValidationError::new(fault));
        check_name(name).map_err(|error| invalid(error.to_string()))?;
        match component {
            "policy" => Err(ParameterError::PolicyNotThisWay),
            OPERATOR_POLICY => {
                let parts = PolicyParts {
                    name,
                    pattern: &value["pattern"],
                    definition: &value["definition"],
                    priority: value.get("priority"),
                    apply_to: value.get("apply-to"),
                };
                let policy = Policy::new(PolicyKind::Operator, &parts);
                policy.map(ParameterValue::OperatorPolicy).map_err(ParameterError::Invalid)
            }
            VHOST_LIMITS => VhostLimits::from_json(value)
                .map(ParameterValue::VhostLimits)
                .map_err(|error| invalid(error.0)),
            _ if KEPT.contains(&component) => {
                check_kept(component, name, value).map_err(ParameterError::Invalid)?;
                Ok(ParameterValue::Kept(value.clone()))
            }
            _ => {
                let shown: String = component.chars().take(64).collect();
                Err(invalid(format!("component {} not found", shown.escape_debug())))
            }
        }
    }
}

/// The keys without which RabbitMQ refuses a value.
fn check_kept(component: &str, name: &str, value: &Value) -> Result<(), ValidationError> {
    check_len(value)?;
    let mut faults = Vec::new();
    let mut mandatory = |key: &str| {
        if value.get(key).is_none() {
            faults.push(format!("Key \"{key}\" not found in {name}"));
        }
    };
    match component {
        "shovel" => {
            mandatory("dest-uri");
            mandatory("src-uri");
            let sources = ["src-exchange", "src-queue", "src-address"];
            if sources.iter().all(|key| value.get(key).is_none()) {
                faults.insert(0, "Must specify 'src-exchange' or 'src-queue'".to_owned());
            }
        }
        "federation-upstream" => mandatory("uri"),
        _ if !value.is_array() => {
            faults.push(format!("{name} should be a list, actually was {}", erlang::term(value)));
        }
        _ => {}
    }
    if faults.is_empty() { Ok(()) } else { Err(ValidationError { faults }) }
}

fn check_len(value: &Value) -> Result<(), ValidationError> {
    if value.to_string().len() <= VALUE_LEN_MAX {
        return Ok(());
    }
    Err(ValidationError::new(format!("the value is longer than {VALUE_LEN_MAX} bytes")))
}

/// Virtual host, component, name.
type Key = (Box<str>, Box<str>, Box<str>);

/// The parameters that have no home of their own.
#[derive(Clone, Debug, Default)]
pub struct Parameters {
    values: BTreeMap<Key, Value>,
}

/// One parameter, to be listed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter<'a> {
    /// Virtual host.
    pub vhost: &'a str,
    /// Component.
    pub component: &'a str,
    /// Name.
    pub name: &'a str,
    /// Value.
    pub value: &'a Value,
}

impl Parameters {
    /// Sets a parameter whose value [`ParameterValue::parse`] said is kept here.
    pub fn put(&mut self, vhost: &str, component: &str, name: &str, value: Value) {
        self.values.insert((vhost.into(), component.into(), name.into()), value);
    }

    /// Removes a parameter; was it there?
    pub fn remove(&mut self, vhost: &str, component: &str, name: &str) -> bool {
        self.values.remove(&(vhost.into(), component.into(), name.into())).is_some()
    }

    /// Forgets a virtual host.
    pub fn remove_vhost(&mut self, vhost: &str) {
        self.values.retain(|(of, _, _), _| &**of != vhost);
    }

    /// The value of a parameter.
    pub fn get(&self, vhost: &str, component: &str, name: &str) -> Option<&Value> {
        self.values.get(&(vhost.into(), component.into(), name.into()))
    }

    /// All parameters, by virtual host, component and name.
    pub fn iter(&self) -> impl Iterator<Item = Parameter<'_>> {
        self.values.iter().map(|((vhost, component, name), value)| Parameter {
            vhost,
            component,
            name,
            value,
        })
    }
}

impl Parameter<'_> {
    /// The parameter as it is stored.
    pub fn to_record(&self) -> OwnedTable {
        FieldTableBuilder::new()
            .with("vhost", FieldValue::LongStr(self.vhost.as_bytes()))
            .with("component", FieldValue::LongStr(self.component.as_bytes()))
            .with("name", FieldValue::LongStr(self.name.as_bytes()))
            .with("value", FieldValue::LongStr(self.value.to_string().as_bytes()))
            .build()
    }
}

impl Parameters {
    /// Takes back a parameter that was stored.
    ///
    /// # Errors
    /// Not written by this version.
    pub fn restore(&mut self, record: FieldTable<'_>) -> Result<(), RecordError> {
        let text = |field| record::text(record, field);
        let value = record::json(record, "value")?;
        self.put(text("vhost")?, text("component")?, text("name")?, value);
        Ok(())
    }
}

/// Parameters of the whole node: `cluster_name` and whatever else an operator keeps there.
#[derive(Clone, Debug, Default)]
pub struct GlobalParameters {
    values: BTreeMap<Box<str>, Value>,
}

impl GlobalParameters {
    /// Checks a global parameter: any value will do if it is not too long.
    ///
    /// # Errors
    /// The operator's: the name, or the length of the value.
    pub fn check(name: &str, value: &Value) -> Result<(), ValidationError> {
        check_name(name).map_err(|error| ValidationError::new(error.to_string()))?;
        check_len(value)
    }

    /// Sets a parameter that [`GlobalParameters::check`] accepts.
    pub fn put(&mut self, name: &str, value: Value) {
        self.values.insert(name.into(), value);
    }

    /// Removes a parameter; was it there?
    pub fn remove(&mut self, name: &str) -> bool {
        self.values.remove(name).is_some()
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// All parameters, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.values.iter().map(|(name, value)| (&**name, value))
    }

    /// A parameter as it is stored.
    pub fn to_record(name: &str, value: &Value) -> OwnedTable {
        FieldTableBuilder::new()
            .with("name", FieldValue::LongStr(name.as_bytes()))
            .with("value", FieldValue::LongStr(value.to_string().as_bytes()))
            .build()
    }

    /// Takes back a parameter that was stored.
    ///
    /// # Errors
    /// Not written by this version.
    pub fn restore(&mut self, record: FieldTable<'_>) -> Result<(), RecordError> {
        self.put(record::text(record, "name")?, record::json(record, "value")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::limits::Limit;
    use serde_json::json;

    #[test]
    fn each_component_has_its_home() {
        let limits = ParameterValue::parse(VHOST_LIMITS, "limits", &json!({"max-queues": 5}));
        let expected = VhostLimits { max_queues: Limit::new(5), ..VhostLimits::default() };
        assert_eq!(limits, Ok(ParameterValue::VhostLimits(expected)));
        let policy = ParameterValue::parse(
            OPERATOR_POLICY,
            "cap",
            &json!({"pattern": "^q", "definition": [["max-length", 7]], "priority": 0}),
        );
        let Ok(ParameterValue::OperatorPolicy(policy)) = policy else { panic!("{policy:?}") };
        assert_eq!((policy.name(), &policy.definition()["max-length"]), ("cap", &json!(7)));
        let shovel = json!({"src-uri": "amqp://", "dest-uri": "amqp://", "src-queue": "q"});
        let kept = ParameterValue::parse("shovel", "s", &shovel);
        assert_eq!(kept, Ok(ParameterValue::Kept(shovel)));
    }

    #[test]
    fn refusals_are_in_rabbitmqs_words() {
        for (component, value, text) in [
            ("policy", json!({}), "policies may not be set using this method"),
            ("nope", json!({}), "Validation failed\n\ncomponent nope not found\n"),
            (
                "shovel",
                json!({}),
                "Validation failed\n\nMust specify 'src-exchange' or 'src-queue'\n\
                 Key \"dest-uri\" not found in s2\nKey \"src-uri\" not found in s2\n",
            ),
            (
                "federation-upstream",
                json!({}),
                "Validation failed\n\nKey \"uri\" not found in s2\n",
            ),
            (
                "vhost-limits",
                json!({"max-queues": "x"}),
                "Validation failed\n\nmax-queues should be a number, actually was <<\"x\">>\n",
            ),
        ] {
            let error = ParameterValue::parse(component, "s2", &value).expect_err("wrong");
            assert_eq!(error.to_string(), text, "{component}");
        }
        let long = json!([{"upstream": "x".repeat(VALUE_LEN_MAX)}]);
        assert!(ParameterValue::parse("federation-upstream-set", "s", &long).is_err());
        assert!(ParameterValue::parse("federation-upstream-set", "", &json!([])).is_err());
        assert!(GlobalParameters::check("g", &long).is_err());
        assert!(GlobalParameters::check("g", &json!(null)).is_ok());
    }

    #[test]
    fn parameters_are_kept_by_name_and_survive_storage() {
        let mut parameters = Parameters::default();
        for (vhost, component, name) in [("v", "shovel", "b"), ("/", "x", "a"), ("v", "a", "z")] {
            parameters.put(vhost, component, name, json!({"é": [1, null]}));
        }
        parameters.put("v", "shovel", "b", json!(2));
        let names: Vec<_> = parameters.iter().map(|one| one.name).collect();
        assert_eq!(names, ["a", "z", "b"]);
        let mut restored = Parameters::default();
        for parameter in parameters.iter() {
            restored.restore(parameter.to_record().as_ref()).expect("stored");
        }
        assert!(restored.iter().eq(parameters.iter()));
        assert_eq!(restored.get("v", "shovel", "b"), Some(&json!(2)));
        assert!(restored.remove("v", "shovel", "b"));
        assert!(!restored.remove("v", "shovel", "b"));
        restored.remove_vhost("/");
        assert_eq!(restored.iter().count(), 1);
        assert!(restored.restore(FieldTable::EMPTY).is_err());
    }

    #[test]
    fn global_parameters_take_any_json() {
        let mut globals = GlobalParameters::default();
        globals.put("cluster_name", json!("leveret@x"));
        globals.put("a", json!(null));
        let mut restored = GlobalParameters::default();
        for (name, value) in globals.iter() {
            let record = GlobalParameters::to_record(name, value);
            restored.restore(record.as_ref()).expect("stored");
        }
        assert!(restored.iter().eq(globals.iter()));
        assert_eq!(restored.get("cluster_name"), Some(&json!("leveret@x")));
        assert!(restored.remove("a"));
        assert!(!restored.remove("a"));
    }
}
