//! Users: listed, shown, made, deleted.

use super::auth::Access;
use super::call::{Call, require, text};
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::response::{ApiError, Outcome, created_or_updated, empty};
use super::route::{Route, delete, get, post, put};
use super::vhosts::words;
use crate::broker::control::Removal;
use crate::broker::definitions::{NewPassword, Step};
use crate::broker::limits::UserLimits;
use crate::broker::snapshot::UserRow;
use crate::broker::user::password::{HashingAlgorithm, PasswordHash};
use crate::broker::user::{Tags, UserError, check_name};
use hyper::StatusCode;
use serde_json::{Map, Value, json};
use std::cmp::Ordering;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/users",
        verbs: &[get(Access::Administrator, "Users", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/users/without-permissions",
        verbs: &[get(Access::Administrator, "Users without any permission", |call| {
            Box::pin(without_permissions(call))
        })],
    },
    Route {
        path: "/api/users/bulk-delete",
        verbs: &[post(Access::Administrator, "Deletes several users", |call| {
            Box::pin(remove_several(call))
        })],
    },
    Route {
        path: "/api/users/{user}",
        verbs: &[
            get(Access::Administrator, "A user", |call| Box::pin(one(call))),
            put(Access::Administrator, "Makes or replaces a user", |call| Box::pin(set(call))),
            delete(Access::Administrator, "Deletes a user", |call| Box::pin(remove(call))),
        ],
    },
];

impl Row for UserRow {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self, other: &Self) -> Ordering {
        self.name.cmp(&other.name)
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        object.field("name", &self.name);
        object.field("password_hash", &self.password_hash);
        object.field("hashing_algorithm", &self.hashing_algorithm);
        object.field("tags", &self.tags);
        let limits = self.limits.iter();
        let limits: Map<String, Value> =
            limits.map(|(name, value)| (name.clone(), Value::from(*value))).collect();
        object.field("limits", &limits);
    }
}

async fn all(call: Call) -> Outcome {
    let rows = call.control().users().await?;
    list::paged(&call, rows)
}

async fn without_permissions(call: Call) -> Outcome {
    let mut rows = call.control().users().await?;
    let permissions = call.control().permissions().await?;
    rows.retain(|row| permissions.iter().all(|permission| permission.user != row.name));
    Ok(list::plain(&call, rows))
}

async fn one(call: Call) -> Outcome {
    let row = call.control().user(call.parameter("user")).await?;
    Ok(list::single(&call, &row))
}

/// A body that is refused.
fn refused(error: UserError) -> ApiError {
    match error {
        UserError::HashNotBase64(text) => ApiError::BadRequest(json!(["not_base64", text])),
        UserError::InvalidName(_)
        | UserError::InvalidTags
        | UserError::PasswordRefused(_)
        | UserError::HashTooLong
        | UserError::UnknownAlgorithm(_) => ApiError::bad_request(error.to_string()),
    }
}

/// The password a body gives: in the clear, as a hash, or none at all.
fn password(call: &Call, body: &Map<String, Value>) -> Result<NewPassword, ApiError> {
    let algorithm = match text(body, "hashing_algorithm")? {
        None => call.server.settings.credentials.algorithm,
        Some(name) => HashingAlgorithm::parse(name).map_err(refused)?,
    };
    match (text(body, "password")?, text(body, "password_hash")?) {
        (Some(_), Some(_)) => {
            Err(ApiError::bad_request("password and password_hash are mutually exclusive"))
        }
        (Some(password), None) => Ok(NewPassword::Plain(algorithm, password.to_owned())),
        (None, Some(hash)) => {
            let hash = PasswordHash::from_base64(algorithm, hash).map_err(refused)?;
            Ok(NewPassword::Hash(hash))
        }
        (None, None) => Ok(NewPassword::Hash(PasswordHash::default())),
    }
}

/// The limits of a row as the broker takes them.
pub(crate) fn limits_of(row: &UserRow) -> Result<UserLimits, ApiError> {
    let limits = row.limits.iter().map(|(name, value)| (name.clone(), Value::from(*value)));
    UserLimits::from_json(&Value::Object(limits.collect()))
        .map_err(|error| ApiError::bad_request(error.to_string()))
}

async fn set(call: Call) -> Outcome {
    let name = call.parameter("user");
    let body = call.object()?;
    check_name(name).map_err(refused)?;
    let tags = words(&body, "tags")?.ok_or_else(|| ApiError::bad_request("tags_not_present"))?;
    let tags = Tags::new(tags.iter().map(String::as_str)).map_err(refused)?;
    let password = password(&call, &body)?;
    let existing = match call.control().user(name).await {
        Ok(row) => Some(row),
        Err(ApiError::NotFound) => None,
        Err(other) => return Err(other),
    };
    let limits = existing.as_ref().map(limits_of).transpose()?.unwrap_or_default();
    call.apply(Step::User { name: name.into(), password, tags, limits }).await?;
    Ok(created_or_updated(existing.is_none()))
}

async fn remove(call: Call) -> Outcome {
    call.remove(Removal::User(call.parameter("user").to_owned())).await
}

async fn remove_several(call: Call) -> Outcome {
    let body = call.object()?;
    require(&body, &["users"])?;
    for name in words(&body, "users")?.unwrap_or_default() {
        match call.remove(Removal::User(name.clone())).await {
            Err(ApiError::NotFound) => {
                return Err(ApiError::BadRequest(json!(["no_such_user", name])));
            }
            outcome => outcome?,
        };
    }
    Ok(empty(StatusCode::NO_CONTENT))
}
