//! Requests about the node's own affairs: logins counted, feature flags enabled, queues rebalanced.
//! Much of it has nothing to do on a single node, and tools ask for it all the same.

use super::auth::{Access, Origin, Principal};
use super::call::Call;
use super::overview::FEATURE_FLAGS;
use super::query::Query;
use super::response::{ApiError, Body, Outcome, empty, json_value};
use super::route::{Route, delete, done, get, post, put};
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::snapshot::Logins;
use crate::broker::user::password::{HashingAlgorithm, PasswordHash, SALT_LEN};
use hyper::{Response, StatusCode};
use serde_json::{Value, json};

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/login",
        verbs: &[post(Access::Open, "Whether a name and a password are right", |call| {
            Box::pin(login(call))
        })],
    },
    Route {
        path: "/api/auth/attempts/{node}",
        verbs: &[
            get(Access::Monitoring, "Logins by protocol", |call| Box::pin(attempts(call))),
            delete(Access::Monitoring, "Counts logins anew", |call| Box::pin(forget(call))),
        ],
    },
    Route {
        path: "/api/auth/attempts/{node}/source",
        verbs: &[
            get(Access::Monitoring, "Logins by user and address, which are not counted", |call| {
                done(check_node(&call).map(|()| none()))
            }),
            delete(Access::Monitoring, "Counts logins anew", |call| Box::pin(forget(call))),
        ],
    },
    Route {
        path: "/api/auth/hash_password/{password}",
        verbs: &[get(Access::Administrator, "A password as it is stored", |call| {
            done(hash_password(&call))
        })],
    },
    Route {
        path: "/api/feature-flags/{name}/enable",
        verbs: &[put(Access::Administrator, "Enables a feature, which all are", |call| {
            done(enable(&call))
        })],
    },
    Route {
        path: "/api/rebalance/queues",
        verbs: &[post(Access::Administrator, "Moves queues between nodes: there is one", |_| {
            done(Ok(empty(StatusCode::NO_CONTENT)))
        })],
    },
    Route {
        path: "/api/reset",
        verbs: &[delete(Access::Administrator, "Forgets rates and histories", |call| {
            done(Ok(reset(&call)))
        })],
    },
    Route {
        path: "/api/reset/{node}",
        verbs: &[delete(Access::Administrator, "Forgets rates and histories", |call| {
            done(check_node(&call).map(|()| reset(&call)))
        })],
    },
    Route {
        path: "/api/shovels",
        verbs: &[get(Access::Monitoring, "Shovels, of which there are none", |_| done(Ok(none())))],
    },
    Route {
        path: "/api/shovels/{vhost}",
        verbs: &[get(
            Access::Vhost,
            "Shovels of a virtual host, of which there are none",
            |call| Box::pin(none_in_vhost(call)),
        )],
    },
    Route {
        path: "/api/stream/connections",
        verbs: &[get(Access::Management, "Stream connections, of which there are none", |_| {
            done(Ok(none()))
        })],
    },
    Route {
        path: "/api/stream/publishers",
        verbs: &[get(Access::Management, "Stream publishers, of which there are none", |_| {
            done(Ok(none()))
        })],
    },
    Route {
        path: "/api/stream/consumers",
        verbs: &[get(Access::Management, "Stream consumers, of which there are none", |_| {
            done(Ok(none()))
        })],
    },
];

/// A list of something there is none of.
fn none() -> Response<Body> {
    json_value(&json!([]))
}

async fn none_in_vhost(call: Call) -> Outcome {
    call.control().vhost(call.parameter("vhost")).await?;
    Ok(none())
}

/// Refuses any other node's name.
fn check_node(call: &Call) -> Result<(), ApiError> {
    let own = call.parameter("node") == call.server.settings.node;
    if own { Ok(()) } else { Err(ApiError::NotFound) }
}

fn reset(call: &Call) -> Response<Body> {
    call.server.rates.take();
    empty(StatusCode::NO_CONTENT)
}

fn enable(call: &Call) -> Outcome {
    let name = call.parameter("name");
    let known = name == "all" || FEATURE_FLAGS.iter().any(|(flag, _)| *flag == name);
    if known {
        Ok(empty(StatusCode::NO_CONTENT))
    } else {
        Err(ApiError::bad_request("unsupported"))
    }
}

fn hash_password(call: &Call) -> Outcome {
    let mut salt = [0; SALT_LEN];
    getrandom::fill(&mut salt).map_err(|_| ApiError::BrokerGone)?;
    let hash = PasswordHash::new(HashingAlgorithm::default(), salt, call.parameter("password"));
    Ok(json_value(&json!({"ok": hash.to_base64()})))
}

/// A form with `username` and `password`.
async fn login(call: Call) -> Outcome {
    let form = Query::parse(&String::from_utf8_lossy(&call.body));
    let (Some(user), Some(password)) = (form.get("username"), form.get("password")) else {
        return Err(ApiError::LoginFailed);
    };
    let loopback = match call.origin {
        Origin::ControlSocket => true,
        Origin::Tcp(address) => address.to_canonical().is_loopback(),
    };
    let request = ControlRequest::Authenticate {
        user: user.to_owned(),
        password: password.to_owned(),
        loopback,
    };
    let reply = call.control().ask(request).await?;
    let ControlReply::Login(row) = reply else { panic!("a login was answered by {reply:?}") };
    let row = row.ok_or(ApiError::LoginFailed)?;
    let principal = Principal::User { name: row.name, tags: row.tags, vhosts: row.vhosts };
    principal.check(Access::Management, None)?;
    Ok(json_value(&json!("ok")))
}

async fn counted(call: &Call) -> Result<[(&'static str, Logins); 2], ApiError> {
    let metrics = call.control().metrics().await?;
    Ok([("amqp091", metrics.amqp_logins), ("http", metrics.http_logins)])
}

async fn attempts(call: Call) -> Outcome {
    check_node(&call)?;
    let base = *call.server.logins_base.borrow();
    let rows = counted(&call).await?.into_iter().zip(base).map(|((protocol, now), base)| {
        let succeeded = now.succeeded.saturating_sub(base.succeeded);
        let failed = now.failed.saturating_sub(base.failed);
        json!({
            "protocol": protocol,
            "auth_attempts": succeeded + failed,
            "auth_attempts_failed": failed,
            "auth_attempts_succeeded": succeeded,
        })
    });
    Ok(json_value(&rows.collect::<Value>()))
}

async fn forget(call: Call) -> Outcome {
    check_node(&call)?;
    let now = counted(&call).await?.map(|(_, logins)| logins);
    *call.server.logins_base.borrow_mut() = now;
    Ok(empty(StatusCode::NO_CONTENT))
}
