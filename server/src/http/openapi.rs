//! The description of the API, made of the same table that leads requests to their handlers.

use super::auth::Access;
use super::resources;
use super::response::json_value;
use super::route::{Route, RouteMethod, Verb, done, get};
use serde_json::{Map, Value, json};

pub(super) const ROUTES: &[Route] = &[Route {
    path: "/api/openapi.json",
    verbs: &[get(Access::Open, "This description", |_| done(Ok(json_value(&description()))))],
}];

/// All paths and what can be done there.
pub(super) fn description() -> Value {
    let mut paths = Map::new();
    for route in resources() {
        let mut operations = Map::new();
        let parameters = path_parameters(route.path);
        if !parameters.is_empty() {
            operations.insert("parameters".to_owned(), Value::from(parameters));
        }
        for verb in route.verbs {
            operations.insert(method_name(verb.method).to_owned(), operation(verb));
        }
        paths.insert(route.path.to_owned(), Value::Object(operations));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Leveret management API",
            "description": "RabbitMQ's management API, and browsing and redriving besides.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0 OR MIT"},
        },
        "components": {
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "schemas": {
                "Error": {
                    "type": "object",
                    "properties": {
                        "error": {"type": "string"},
                        "reason": {"description": "A text, or a term as an array"},
                    },
                    "required": ["error", "reason"],
                },
            },
        },
        "paths": paths,
    })
}

fn method_name(method: RouteMethod) -> &'static str {
    match method {
        RouteMethod::Get => "get",
        RouteMethod::Post => "post",
        RouteMethod::Put => "put",
        RouteMethod::Delete => "delete",
    }
}

fn path_parameters(path: &str) -> Vec<Value> {
    let names = path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameter =
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}});
    names.map(parameter).collect()
}

fn operation(verb: &Verb) -> Value {
    let refusal = |description: &str| {
        json!({
            "description": description,
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        })
    };
    let mut responses = Map::new();
    match verb.method {
        RouteMethod::Get => {
            responses.insert("200".to_owned(), json!({"description": "What was asked for"}));
        }
        RouteMethod::Put => {
            responses.insert("201".to_owned(), json!({"description": "Made"}));
            responses.insert("204".to_owned(), json!({"description": "Was there, or changed"}));
        }
        RouteMethod::Post => {
            responses.insert("2XX".to_owned(), json!({"description": "Done"}));
        }
        RouteMethod::Delete => {
            responses.insert("204".to_owned(), json!({"description": "Gone"}));
        }
    }
    let mut operation = json!({"summary": verb.summary});
    if let Some(who) = who(verb.access) {
        operation["description"] = Value::from(who);
        operation["security"] = json!([{"basic": []}]);
        responses.insert("401".to_owned(), refusal("No login, or not for this user"));
    }
    if verb.method != RouteMethod::Get {
        responses.insert("400".to_owned(), refusal("The request makes no sense"));
    }
    operation["responses"] = Value::Object(responses);
    operation
}

/// Whom an operation is for; nobody in particular where no login is needed.
fn who(access: Access) -> Option<&'static str> {
    match access {
        Access::Open => None,
        Access::Management => Some("For users with any management tag."),
        Access::Vhost => Some("For users with a permission in the virtual host."),
        Access::Monitoring => Some("For users with the tag monitoring."),
        Access::Policymaker => Some("For users with the tag policymaker."),
        Access::Administrator => Some("For users with the tag administrator."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::fake::Fake;
    use std::collections::BTreeSet;

    /// Goal: the description and the API agree.
    /// Method: every described operation without parameters is there, whatever it answers; and no
    /// path is described twice.
    #[test]
    fn what_is_described_is_there() {
        let fake = Fake::start();
        let served = fake.get("/api/openapi.json");
        assert_eq!(served, description());
        let mut seen = BTreeSet::new();
        for route in resources() {
            assert!(seen.insert(route.path), "{} is listed twice", route.path);
            for verb in route.verbs {
                let described = &served["paths"][route.path][method_name(verb.method)];
                assert_eq!(described["summary"], verb.summary, "{}", route.path);
                assert!(!verb.summary.is_empty(), "{}", route.path);
            }
            let path = route.path.replace(['{', '}'], "x");
            let options = fake.request("OPTIONS", &path, "");
            assert_eq!(options.status, 200, "{path}");
            let methods = options.head.lines().find_map(|line| line.strip_prefix("allow: "));
            let methods = methods.expect("OPTIONS tells what there is").to_owned();
            for verb in route.verbs {
                assert!(methods.contains(method_name(verb.method)), "{path}: {methods}");
            }
        }
    }

    #[test]
    fn parameters_are_described() {
        let served = description();
        let parameters = &served["paths"]["/api/queues/{vhost}/{name}"]["parameters"];
        let names: Vec<_> = parameters.as_array().unwrap().iter().map(|one| &one["name"]).collect();
        assert_eq!(names, ["vhost", "name"]);
        let open = &served["paths"]["/api/version"]["get"];
        assert_eq!(open.get("security"), None);
    }
}
