//! Users: listed and shown.

use super::auth::Access;
use super::call::Call;
use super::json::ObjectWriter;
use super::list::{self, Row};
use super::response::Outcome;
use super::route::{Route, get};
use crate::broker::snapshot::UserRow;
use serde_json::{Map, Value};
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
        path: "/api/users/{user}",
        verbs: &[get(Access::Administrator, "A user", |call| Box::pin(one(call)))],
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
