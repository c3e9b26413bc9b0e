//! Limits of virtual hosts and of users: listed, set, cleared.

use super::auth::Access;
use super::call::{Call, require};
use super::response::{ApiError, Outcome, empty, json_value};
use super::route::{Route, delete, get, put};
use super::users::limits_of;
use crate::broker::definitions::{NewPassword, Step};
use crate::broker::limits::{Limit, LimitError, UserLimits, VhostLimits, integer};
use crate::broker::policy::ValidationError;
use crate::broker::snapshot::{UserRow, VhostRow};
use crate::broker::user::Tags;
use crate::broker::user::password::{HashingAlgorithm, PasswordHash};
use hyper::StatusCode;
use serde_json::{Map, Value, json};

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/vhost-limits",
        verbs: &[get(Access::Management, "Limits of virtual hosts", |call| {
            Box::pin(of_vhosts(call))
        })],
    },
    Route {
        path: "/api/vhost-limits/{vhost}",
        verbs: &[get(Access::Vhost, "Limits of a virtual host", |call| Box::pin(of_vhosts(call)))],
    },
    Route {
        path: "/api/vhost-limits/{vhost}/{name}",
        verbs: &[
            put(Access::Administrator, "Limits a virtual host", |call| Box::pin(limit_vhost(call))),
            delete(Access::Administrator, "Takes a limit of a virtual host away", |call| {
                Box::pin(unlimit_vhost(call))
            }),
        ],
    },
    Route {
        path: "/api/user-limits",
        verbs: &[get(Access::Management, "Limits of users", |call| Box::pin(of_users(call)))],
    },
    Route {
        path: "/api/user-limits/{user}",
        verbs: &[get(Access::Management, "Limits of a user", |call| Box::pin(of_users(call)))],
    },
    Route {
        path: "/api/user-limits/{user}/{name}",
        verbs: &[
            put(Access::Administrator, "Limits a user", |call| Box::pin(limit_user(call))),
            delete(Access::Administrator, "Takes a limit of a user away", |call| {
                Box::pin(unlimit_user(call))
            }),
        ],
    },
];

fn object(limits: Vec<(String, i64)>) -> Map<String, Value> {
    limits.into_iter().map(|(name, value)| (name, Value::from(value))).collect()
}

async fn of_vhosts(call: Call) -> Outcome {
    if let Some(vhost) = call.find("vhost") {
        call.control().vhost(vhost).await?;
    }
    let wanted = |row: &VhostRow| {
        !row.limits.is_empty()
            && call.principal.sees_vhost(&row.name)
            && call.find("vhost").is_none_or(|vhost| vhost == row.name)
    };
    let rows = call.control().vhosts().await?.into_iter().filter(wanted);
    let rows = rows.map(|row| json!({"vhost": row.name, "value": object(row.limits)}));
    Ok(json_value(&rows.collect()))
}

async fn of_users(call: Call) -> Outcome {
    if let Some(user) = call.find("user") {
        call.control().user(user).await?;
    }
    let wanted = |row: &UserRow| {
        !row.limits.is_empty() && call.find("user").is_none_or(|user| user == row.name)
    };
    let rows = call.control().users().await?.into_iter().filter(wanted);
    let rows = rows.map(|row| json!({"user": row.name, "value": object(row.limits)}));
    Ok(json_value(&rows.collect()))
}

/// The value that a body sets a limit to.
fn value(call: &Call) -> Result<Value, ApiError> {
    let mut body = call.object()?;
    require(&body, &["value"])?;
    Ok(body.remove("value").expect("required above"))
}

/// The limits of a virtual host, which must be there.
async fn vhost_limits(call: &Call) -> Result<VhostLimits, ApiError> {
    let vhost = call.parameter("vhost");
    call.check_vhost(vhost).await?;
    let row = call.control().vhost(vhost).await?;
    VhostLimits::from_json(&Value::Object(object(row.limits))).map_err(vhost_refused)
}

fn vhost_refused(error: LimitError) -> ApiError {
    ApiError::bad_request(ValidationError::new(error.0).to_string())
}

async fn limit_vhost(call: Call) -> Outcome {
    let mut limits = vhost_limits(&call).await?;
    let (name, value) = (call.parameter("name"), value(&call)?);
    let limit = limits.field(name, &value).map_err(vhost_refused)?;
    *limit = integer(name, &value).map_err(vhost_refused)?;
    set_vhost(&call, limits).await
}

async fn unlimit_vhost(call: Call) -> Outcome {
    let mut limits = vhost_limits(&call).await?;
    // One that nobody knows is not there already.
    if let Ok(limit) = limits.field(call.parameter("name"), &Value::Null) {
        *limit = Limit::NONE;
    }
    set_vhost(&call, limits).await
}

async fn set_vhost(call: &Call, limits: VhostLimits) -> Outcome {
    let vhost = call.parameter("vhost").into();
    call.apply(Step::VhostLimits { vhost, limits }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

fn user_refused(error: LimitError) -> ApiError {
    ApiError::bad_request(error.0)
}

/// The user of the path, which must be there.
async fn user(call: &Call) -> Result<UserRow, ApiError> {
    let name = call.parameter("user");
    match call.control().user(name).await {
        Err(ApiError::NotFound) => Err(ApiError::BadRequest(json!(["no_such_user", name]))),
        outcome => outcome,
    }
}

async fn limit_user(call: Call) -> Outcome {
    let row = user(&call).await?;
    let mut limits = limits_of(&row)?;
    let (name, value) = (call.parameter("name"), value(&call)?);
    let limit = limits.field(name, &value).map_err(user_refused)?;
    *limit = integer(name, &value).map_err(user_refused)?;
    set_user(&call, row, limits).await
}

async fn unlimit_user(call: Call) -> Outcome {
    let row = user(&call).await?;
    let mut limits = limits_of(&row)?;
    if let Ok(limit) = limits.field(call.parameter("name"), &Value::Null) {
        *limit = Limit::NONE;
    }
    set_user(&call, row, limits).await
}

/// The same user under other limits.
async fn set_user(call: &Call, row: UserRow, limits: UserLimits) -> Outcome {
    let refused = |error: crate::broker::user::UserError| ApiError::bad_request(error.to_string());
    let algorithm = HashingAlgorithm::parse(&row.hashing_algorithm).map_err(refused)?;
    let hash = PasswordHash::from_base64(algorithm, &row.password_hash).map_err(refused)?;
    let tags = Tags::new(row.tags.iter().map(String::as_str)).map_err(refused)?;
    let password = NewPassword::Hash(hash);
    call.apply(Step::User { name: row.name.into(), password, tags, limits }).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}
