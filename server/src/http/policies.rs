//! Policies and operator policies: listed, shown, set, cleared.

use super::auth::{Access, Principal};
use super::call::{Call, require};
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::response::{ApiError, Outcome, created_or_updated};
use super::route::{Route, delete, get, put};
use crate::broker::control::Removal;
use crate::broker::definitions::Step;
use crate::broker::policy::{Policy, PolicyKind, PolicyParts};
use crate::broker::snapshot::PolicyRow;
use serde_json::Value;
use std::cmp::Ordering;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/policies",
        verbs: &[get(Access::Management, "Policies", |call| Box::pin(all(call, PolicyKind::User)))],
    },
    Route {
        path: "/api/policies/{vhost}",
        verbs: &[get(Access::Vhost, "Policies of a virtual host", |call| {
            Box::pin(all(call, PolicyKind::User))
        })],
    },
    Route {
        path: "/api/policies/{vhost}/{name}",
        verbs: &[
            get(Access::Vhost, "A policy", |call| Box::pin(one(call, PolicyKind::User))),
            put(Access::Policymaker, "Sets a policy", |call| Box::pin(set(call, PolicyKind::User))),
            delete(Access::Policymaker, "Clears a policy", |call| {
                Box::pin(clear(call, PolicyKind::User))
            }),
        ],
    },
    Route {
        path: "/api/operator-policies",
        verbs: &[get(Access::Management, "Operator policies", |call| {
            Box::pin(all(call, PolicyKind::Operator))
        })],
    },
    Route {
        path: "/api/operator-policies/{vhost}",
        verbs: &[get(Access::Vhost, "Operator policies of a virtual host", |call| {
            Box::pin(all(call, PolicyKind::Operator))
        })],
    },
    Route {
        path: "/api/operator-policies/{vhost}/{name}",
        verbs: &[
            get(Access::Vhost, "An operator policy", |call| {
                Box::pin(one(call, PolicyKind::Operator))
            }),
            put(Access::Administrator, "Sets an operator policy", |call| {
                Box::pin(set(call, PolicyKind::Operator))
            }),
            delete(Access::Administrator, "Clears an operator policy", |call| {
                Box::pin(clear(call, PolicyKind::Operator))
            }),
        ],
    },
];

impl Row for PolicyRow {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self, other: &Self) -> Ordering {
        (&self.vhost, &self.name).cmp(&(&other.vhost, &other.name))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        object.field("vhost", &self.vhost);
        object.field("name", &self.name);
        object.field("pattern", &self.pattern);
        object.field("apply-to", &self.apply_to);
        object.field("definition", &self.definition);
        object.field("priority", &self.priority);
    }
}

/// The policies the path is about and the caller may see.
async fn visible(call: &Call, kind: PolicyKind) -> Result<Vec<PolicyRow>, ApiError> {
    if let Some(vhost) = call.find("vhost") {
        call.control().vhost(vhost).await?;
    }
    let mut rows = call.control().policies(kind == PolicyKind::Operator).await?;
    rows.retain(|row| {
        call.find("vhost").is_none_or(|vhost| vhost == row.vhost)
            && call.principal.sees_vhost(&row.vhost)
    });
    Ok(rows)
}

async fn all(call: Call, kind: PolicyKind) -> Outcome {
    let rows = visible(&call, kind).await?;
    Ok(list::plain(&call, rows))
}

async fn one(call: Call, kind: PolicyKind) -> Outcome {
    let name = call.parameter("name");
    let row = visible(&call, kind).await?.into_iter().find(|row| row.name == name);
    Ok(list::single(&call, &row.ok_or(ApiError::NotFound)?))
}

/// Faults of a policy reach HTTP clients with their angle brackets escaped, those of an operator
/// policy, and all that the command line sees, as they are.
fn refused(call: &Call, kind: PolicyKind, text: &str) -> ApiError {
    let escape = kind == PolicyKind::User && call.principal != Principal::Operator;
    let text = if escape {
        text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    } else {
        text.to_owned()
    };
    ApiError::bad_request(text)
}

async fn set(call: Call, kind: PolicyKind) -> Outcome {
    let vhost = call.parameter("vhost");
    call.check_vhost(vhost).await?;
    let body = call.object()?;
    require(&body, &["pattern", "definition"])?;
    let parts = PolicyParts {
        name: call.parameter("name"),
        pattern: &body["pattern"],
        definition: &body["definition"],
        priority: body.get("priority").filter(|value| !value.is_null()),
        apply_to: body.get("apply-to").filter(|value: &&Value| !value.is_null()),
    };
    let policy =
        Policy::new(kind, &parts).map_err(|error| refused(&call, kind, &error.to_string()))?;
    let created = call.apply(Step::Policy { vhost: vhost.into(), kind, policy }).await?;
    Ok(created_or_updated(created))
}

async fn clear(call: Call, kind: PolicyKind) -> Outcome {
    let vhost = call.parameter("vhost").to_owned();
    call.control().vhost(&vhost).await?;
    let name = call.parameter("name").to_owned();
    call.remove(Removal::Policy { operator: kind == PolicyKind::Operator, vhost, name }).await
}
