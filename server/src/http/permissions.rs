//! Permissions and topic permissions: listed and shown.

use super::auth::Access;
use super::call::Call;
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::response::{ApiError, Outcome};
use super::route::{Route, get};
use crate::broker::snapshot::{PermissionRow, TopicPermissionRow};
use std::cmp::Ordering;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/permissions",
        verbs: &[get(Access::Administrator, "Permissions", |call| Box::pin(all(call)))],
    },
    Route {
        path: "/api/permissions/{vhost}/{user}",
        verbs: &[get(Access::Administrator, "A permission", |call| Box::pin(one(call)))],
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
        verbs: &[get(
            Access::Administrator,
            "Topic permissions of a user in a virtual host",
            |call| Box::pin(topics_of(call)),
        )],
    },
    Route {
        path: "/api/topic-permissions/{vhost}/{user}/{exchange}",
        verbs: &[get(Access::Administrator, "A topic permission", |call| Box::pin(topic(call)))],
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
