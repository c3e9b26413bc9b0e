//! Runtime parameters and global parameters: listed, shown, set, cleared.
//!
//! Operator policies and limits of virtual hosts are parameters, too: components `operator_policy`
//! and `vhost-limits`.

use super::auth::Access;
use super::call::{Call, require, required_text};
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::overview::cluster_name_of;
use super::response::{ApiError, Outcome, created_or_updated, empty, json_value};
use super::route::{Route, delete, get, put};
use crate::broker::control::Removal;
use crate::broker::definitions::Step;
use crate::broker::limits::VhostLimits;
use crate::broker::parameters::{
    GlobalParameters, OPERATOR_POLICY, ParameterValue, VHOST_LIMITS, VHOST_LIMITS_NAME,
};
use crate::broker::policy::PolicyKind;
use crate::broker::snapshot::ParameterRow;
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;

/// The global parameter that names the cluster.
const CLUSTER_NAME: &str = "cluster_name";

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/parameters",
        verbs: &[get(Access::Policymaker, "Runtime parameters", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/parameters/{component}",
        verbs: &[get(Access::Policymaker, "Parameters of a component", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/parameters/{component}/{vhost}",
        verbs: &[get(Access::Policymaker, "Parameters of a component in a virtual host", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/parameters/{component}/{vhost}/{name}",
        verbs: &[
            get(Access::Policymaker, "A parameter", |call| Box::pin(one(call))),
            put(Access::Policymaker, "Sets a parameter", |call| Box::pin(set(call))),
            delete(Access::Policymaker, "Clears a parameter", |call| Box::pin(clear(call))),
        ],
    },
    Route {
        path: "/api/global-parameters",
        verbs: &[get(Access::Policymaker, "Global parameters", |call| Box::pin(all_global(call)))],
    },
    Route {
        path: "/api/global-parameters/{name}",
        verbs: &[
            get(Access::Policymaker, "A global parameter", |call| Box::pin(one_global(call))),
            put(Access::Policymaker, "Sets a global parameter", |call| Box::pin(set_global(call))),
            delete(Access::Policymaker, "Clears a global parameter", |call| {
                let name = call.parameter("name").to_owned();
                Box::pin(async move { call.remove(Removal::GlobalParameter(name)).await })
            }),
        ],
    },
    Route {
        path: "/api/cluster-name",
        verbs: &[
            get(Access::Management, "The name of the cluster", |call| Box::pin(cluster_name(call))),
            put(Access::Administrator, "Names the cluster", |call| {
                Box::pin(set_cluster_name(call))
            }),
        ],
    },
];

impl Row for ParameterRow {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = (&self.vhost, &self.component, &self.name);
        key.cmp(&(&other.vhost, &other.component, &other.name))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        object.field("value", &self.value);
        object.field("vhost", &self.vhost);
        object.field("component", &self.component);
        object.field("name", &self.name);
    }
}

/// The parameters the path is about and the caller may see, wherever they live.
async fn visible(call: &Call) -> Result<Vec<ParameterRow>, ApiError> {
    let vhosts = call.control().vhosts().await?;
    if let Some(wanted) = call.find("vhost")
        && vhosts.iter().all(|row| row.name != wanted)
    {
        return Err(ApiError::NotFound);
    }
    let mut rows = call.control().parameters().await?;
    for policy in call.control().policies(true).await? {
        let value = json!({
            "pattern": policy.pattern,
            "definition": policy.definition,
            "priority": policy.priority,
            "apply-to": policy.apply_to,
        });
        let component = OPERATOR_POLICY.to_owned();
        rows.push(ParameterRow { vhost: policy.vhost, component, name: policy.name, value });
    }
    for vhost in vhosts.into_iter().filter(|vhost| !vhost.limits.is_empty()) {
        let limits = vhost.limits.into_iter().map(|(name, value)| (name, Value::from(value)));
        rows.push(ParameterRow {
            vhost: vhost.name,
            component: VHOST_LIMITS.to_owned(),
            name: VHOST_LIMITS_NAME.to_owned(),
            value: Value::Object(limits.collect()),
        });
    }
    rows.retain(|row| {
        call.principal.sees_vhost(&row.vhost)
            && call.find("component").is_none_or(|name| name == row.component)
            && call.find("vhost").is_none_or(|name| name == row.vhost)
            && call.find("name").is_none_or(|name| name == row.name)
    });
    Ok(rows)
}

async fn all(call: Call) -> Outcome {
    let rows = visible(&call).await?;
    Ok(list::plain(&call, rows))
}

async fn one(call: Call) -> Outcome {
    let row = visible(&call).await?.into_iter().next();
    Ok(list::single(&call, &row.ok_or(ApiError::NotFound)?))
}

async fn set(call: Call) -> Outcome {
    let vhost = call.parameter("vhost");
    call.check_vhost(vhost).await?;
    let body = call.object()?;
    require(&body, &["value"])?;
    let (component, name) = (call.parameter("component"), call.parameter("name"));
    let value = ParameterValue::parse(component, name, &body["value"])
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let existed = !visible(&call).await?.is_empty();
    let vhost = vhost.into();
    call.apply(match value {
        ParameterValue::OperatorPolicy(policy) => {
            Step::Policy { vhost, kind: PolicyKind::Operator, policy }
        }
        ParameterValue::VhostLimits(limits) => Step::VhostLimits { vhost, limits },
        ParameterValue::Kept(value) => {
            Step::Parameter { vhost, component: component.into(), name: name.into(), value }
        }
    })
    .await?;
    Ok(created_or_updated(!existed))
}

async fn clear(call: Call) -> Outcome {
    if visible(&call).await?.is_empty() {
        return Err(ApiError::NotFound);
    }
    let own = |name| call.parameter(name).to_owned();
    let (component, vhost, name) = (own("component"), own("vhost"), own("name"));
    if component == VHOST_LIMITS {
        let limits = VhostLimits::default();
        call.apply(Step::VhostLimits { vhost: vhost.into(), limits }).await?;
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    call.remove(if component == OPERATOR_POLICY {
        Removal::Policy { operator: true, vhost, name }
    } else {
        Removal::Parameter { vhost, component, name }
    })
    .await
}

/// Global parameters, with the cluster's name also where nobody gave one.
async fn global(call: &Call) -> Result<Map<String, Value>, ApiError> {
    let mut all: Map<String, Value> =
        call.control().global_parameters().await?.into_iter().collect();
    if !all.contains_key(CLUSTER_NAME) {
        let row = call.control().overview().await?;
        all.insert(CLUSTER_NAME.to_owned(), Value::from(cluster_name_of(&call.server, &row)));
    }
    Ok(all)
}

async fn all_global(call: Call) -> Outcome {
    let all = global(&call).await?;
    let rows = all.into_iter().map(|(name, value)| json!({"name": name, "value": value}));
    Ok(json_value(&rows.collect()))
}

async fn one_global(call: Call) -> Outcome {
    let name = call.parameter("name");
    let value = global(&call).await?.remove(name).ok_or(ApiError::NotFound)?;
    Ok(json_value(&json!({"name": name, "value": value})))
}

async fn set_global(call: Call) -> Outcome {
    let name = call.parameter("name");
    let mut body = call.object()?;
    require(&body, &["value"])?;
    let value = body.remove("value").expect("required above");
    Ok(created_or_updated(put_global(&call, name, value).await?))
}

async fn put_global(call: &Call, name: &str, value: Value) -> Result<bool, ApiError> {
    GlobalParameters::check(name, &value)
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    call.apply(Step::GlobalParameter { name: name.into(), value }).await
}

async fn cluster_name(call: Call) -> Outcome {
    let row = call.control().overview().await?;
    Ok(json_value(&json!({"name": cluster_name_of(&call.server, &row)})))
}

async fn set_cluster_name(call: Call) -> Outcome {
    let body = call.object()?;
    require(&body, &["name"])?;
    let name = required_text(&body, "name")?;
    put_global(&call, CLUSTER_NAME, Value::from(name)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
