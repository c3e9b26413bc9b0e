//! Permissions and topic permissions: listed, shown, set, cleared.

use super::auth::Access;
use super::call::{Call, require, required_text};
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::response::{ApiError, Outcome, created_or_updated};
use super::route::{Route, delete, get, put};
use crate::broker::control::Removal;
use crate::broker::definitions::Step;
use crate::broker::pattern::PatternError;
use crate::broker::permission::{Permission, TopicPermission};
use crate::broker::snapshot::{PermissionRow, TopicPermissionRow};
use serde_json::{Value, json};
use std::cmp::Ordering;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/permissions",
        verbs: &[get(Access::Administrator, "Permissions", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/permissions/{vhost}/{user}",
        verbs: &[
            get(Access::Administrator, "A permission", |call| Box::pin(one(call))),
            put(Access::Administrator, "Sets a permission", |call| Box::pin(set(call))),
            delete(Access::Administrator, "Takes a permission away", |call| Box::pin(clear(call))),
        ],
    },
    Route {
        path: "/api/users/{user}/permissions",
        verbs: &[get(Access::Administrator, "Permissions of a user", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/vhosts/{vhost}/permissions",
        verbs: &[get(Access::Administrator, "Permissions in a virtual host", |call| {
            Box::pin(all(call))
        })],
    },
    Route {
        path: "/api/topic-permissions",
        verbs: &[get(Access::Administrator, "Topic permissions", |call| Box::pin(topics(call)))],
    },
    Route {
        path: "/api/topic-permissions/{vhost}/{user}",
        verbs: &[
            get(Access::Administrator, "Topic permissions of a user in a virtual host", |call| {
                Box::pin(topics_of(call))
            }),
            put(Access::Administrator, "Sets a topic permission", |call| Box::pin(set_topic(call))),
            delete(Access::Administrator, "Takes topic permissions away", |call| {
                Box::pin(clear_topics(call))
            }),
        ],
    },
    Route {
        path: "/api/topic-permissions/{vhost}/{user}/{exchange}",
        verbs: &[
            get(Access::Administrator, "A topic permission", |call| Box::pin(topic(call))),
            delete(Access::Administrator, "Takes a topic permission away", |call| {
                Box::pin(clear_topics(call))
            }),
        ],
    },
    Route {
        path: "/api/users/{user}/topic-permissions",
        verbs: &[get(Access::Administrator, "Topic permissions of a user", |call| {
            Box::pin(topics(call))
        })],
    },
    Route {
        path: "/api/vhosts/{vhost}/topic-permissions",
        verbs: &[get(Access::Administrator, "Topic permissions in a virtual host", |call| {
            Box::pin(topics(call))
        })],
    },
];

impl Row for PermissionRow {
    fn name(&self) -> &str {
        &self.user
    }

    fn order(&self, other: &Self) -> Ordering {
        (&self.vhost, &self.user).cmp(&(&other.vhost, &other.user))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        object.field("user", &self.user);
        object.field("vhost", &self.vhost);
        object.field("configure", &self.configure);
        object.field("write", &self.write);
        object.field("read", &self.read);
    }
}

impl Row for TopicPermissionRow {
    fn name(&self) -> &str {
        &self.user
    }

    fn order(&self, other: &Self) -> Ordering {
        let key = (&self.vhost, &self.user, &self.exchange);
        key.cmp(&(&other.vhost, &other.user, &other.exchange))
    }

    fn render(&self, object: &mut ObjectWriter<'_>) {
        object.field("user", &self.user);
        object.field("vhost", &self.vhost);
        object.field("exchange", &self.exchange);
        object.field("write", &self.write);
        object.field("read", &self.read);
    }
}

/// Refuses a path that names a user or a virtual host there is none of.
async fn check_path(call: &Call) -> Result<(), ApiError> {
    if let Some(user) = call.find("user") {
        call.control().user(user).await?;
    }
    if let Some(vhost) = call.find("vhost") {
        call.control().vhost(vhost).await?;
    }
    Ok(())
}

/// Whether a row is about the user and the virtual host of the path, where it names them.
fn concerns(call: &Call, user: &str, vhost: &str) -> bool {
    call.find("user").is_none_or(|name| name == user)
        && call.find("vhost").is_none_or(|name| name == vhost)
}

async fn all(call: Call) -> Outcome {
    check_path(&call).await?;
    let mut rows = call.control().permissions().await?;
    rows.retain(|row| concerns(&call, &row.user, &row.vhost));
    Ok(list::plain(&call, rows))
}

async fn one(call: Call) -> Outcome {
    let rows = call.control().permissions().await?;
    let row = rows.into_iter().find(|row| concerns(&call, &row.user, &row.vhost));
    Ok(list::single(&call, &row.ok_or(ApiError::NotFound)?))
}

/// The topic permissions the path is about.
pub(crate) async fn matching(call: &Call) -> Result<Vec<TopicPermissionRow>, ApiError> {
    let mut rows = call.control().topic_permissions().await?;
    rows.retain(|row| concerns(call, &row.user, &row.vhost));
    Ok(rows)
}

async fn topics(call: Call) -> Outcome {
    check_path(&call).await?;
    Ok(list::plain(&call, matching(&call).await?))
}

async fn topics_of(call: Call) -> Outcome {
    let rows = matching(&call).await?;
    if rows.is_empty() { Err(ApiError::NotFound) } else { Ok(list::plain(&call, rows)) }
}

async fn topic(call: Call) -> Outcome {
    let exchange = call.parameter("exchange");
    let rows = matching(&call).await?;
    let row = rows.into_iter().find(|row| row.exchange == exchange);
    Ok(list::single(&call, &row.ok_or(ApiError::NotFound)?))
}

/// Refuses a permission of a user, or in a virtual host, that does not exist.
async fn check_people(call: &Call) -> Result<(), ApiError> {
    match check_path(call).await {
        Err(ApiError::NotFound) => Err(ApiError::bad_request("vhost_or_user_not_found")),
        outcome => outcome,
    }
}

/// What RabbitMQ says of a pattern that does not compile: Erlang shows texts as lists of numbers.
fn invalid_pattern(pattern: &Value, error: &PatternError) -> ApiError {
    ApiError::BadRequest(json!([
        "invalid_regexp",
        pattern,
        [error.reason.as_bytes(), error.offset]
    ]))
}

async fn set(call: Call) -> Outcome {
    check_people(&call).await?;
    let body = call.object()?;
    require(&body, &["configure", "write", "read"])?;
    let pattern = |key| required_text(&body, key);
    let permission = Permission::new(pattern("configure")?, pattern("write")?, pattern("read")?)
        .map_err(|error| invalid_pattern(&json!(error.pattern.as_bytes()), &error))?;
    let (user, vhost) = (call.parameter("user").into(), call.parameter("vhost").into());
    Ok(created_or_updated(call.apply(Step::Permission { user, vhost, permission }).await?))
}

async fn clear(call: Call) -> Outcome {
    let (user, vhost) = (call.parameter("user").to_owned(), call.parameter("vhost").to_owned());
    call.remove(Removal::Permission { user, vhost }).await
}

async fn set_topic(call: Call) -> Outcome {
    check_people(&call).await?;
    let body = call.object()?;
    require(&body, &["exchange", "write", "read"])?;
    let (user, vhost) = (call.parameter("user"), call.parameter("vhost"));
    let part = |key| required_text(&body, key);
    let permission =
        TopicPermission::new(user, vhost, part("exchange")?, part("write")?, part("read")?)
            .map_err(|error| invalid_pattern(&json!(error.pattern), &error))?;
    let step = Step::TopicPermission { user: user.into(), vhost: vhost.into(), permission };
    Ok(created_or_updated(call.apply(step).await?))
}

async fn clear_topics(call: Call) -> Outcome {
    let (user, vhost) = (call.parameter("user").to_owned(), call.parameter("vhost").to_owned());
    let exchange = call.find("exchange").map(str::to_owned);
    call.remove(Removal::TopicPermission { user, vhost, exchange }).await
}
