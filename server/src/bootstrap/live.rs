//! Settings that may change while the broker runs, and how SIGHUP reads them again.

use std::mem;

use leveret_protocol::field::{FieldTableBuilder, FieldValue, OwnedTable};
use leveret_protocol::session::SessionSettings;

use super::{StartError, load};
use crate::broker::auth::{AnonymousLogin, AuthSettings, Mechanism};
use crate::config::{Arguments, Config, Loaded, Persona};
use crate::http::RABBITMQ_VERSION;
use crate::shell::logging::Logging;
use crate::shell::{LiveSettings, Reload};

/// What of the configuration the loop and the broker may be given at any time.
pub(super) fn settings(config: &Config) -> Result<LiveSettings, StartError> {
    let auth = auth_settings(config);
    Ok(LiveSettings {
        session: SessionSettings {
            server_properties: server_properties(config.cluster_name()),
            mechanisms: auth.offered(),
            channel_max: config.channels_max,
            frame_max: config.frame_size_max,
            heartbeat_s: config.heartbeat_s,
            handshake_timeout_ms: config.handshake_timeout_ms,
            max_message_size: config.message_size_max,
        },
        socket: config.socket.clone(),
        connections_max: config.connections_max,
        gauge_interval_ms: config.pressure.interval_ms,
        watermarks: config.pressure.watermarks(),
        auth,
        node: config.node.settings().map_err(StartError)?,
    })
}

/// Reads the configuration again whenever it is called. A wrong one is told and changes nothing.
pub(super) fn reload(
    arguments: Arguments,
    persona: Persona,
    mut loaded: Loaded,
    logging: Logging,
) -> Reload {
    Reload(Box::new(move || {
        let again =
            load(&arguments, &persona).and_then(|again| Ok((settings(&again.config)?, again)));
        let (settings, again) = match again {
            Ok(again) => again,
            Err(error) => {
                tracing::error!("nothing is changed: {error}");
                return None;
            }
        };
        logging.set_levels(&again.config.log);
        if let Err(error) = logging.reopen() {
            tracing::error!(%error, "cannot open the log file again");
        }
        for warning in &again.warnings {
            tracing::warn!("{warning}");
        }
        let changes = again.changes_since(&loaded);
        if !changes.later.is_empty() {
            tracing::warn!(keys = changes.later.join(", "), "changes that wait for the next start");
        }
        tracing::info!(keys = changes.live.join(", "), "configuration read again");
        drop(mem::replace(&mut loaded, again));
        Some(settings)
    }))
}

/// How one logs in. Mechanisms that are not there (`EXTERNAL` before there is TLS) are left out,
/// since clients take the first offer they know.
pub(super) fn auth_settings(config: &Config) -> AuthSettings {
    let mut mechanisms = Vec::new();
    for name in config.auth_mechanisms() {
        if let Some(mechanism) = Mechanism::parse(&name) {
            mechanisms.push(mechanism);
        } else {
            tracing::warn!(mechanism = name, "not supported, not offered");
        }
    }
    let anonymous = config.anonymous_user.as_ref().map(|user| AnonymousLogin {
        user: user.clone(),
        password: config.anonymous_password.reveal().to_owned(),
    });
    let loopback_users = config.loopback_users().into_iter().collect();
    AuthSettings { mechanisms, loopback_users, anonymous }
}

/// What `connection.start` says of us: RabbitMQ's keys, since clients decide by product, version
/// and capabilities, and our own name beside them.
fn server_properties(cluster_name: &str) -> OwnedTable {
    const CAPABILITIES: [&str; 9] = [
        "publisher_confirms",
        "exchange_exchange_bindings",
        "basic.nack",
        "consumer_cancel_notify",
        "connection.blocked",
        "consumer_priorities",
        "authentication_failure_close",
        "per_consumer_qos",
        "direct_reply_to",
    ];
    let mut capabilities = FieldTableBuilder::new();
    for capability in CAPABILITIES {
        capabilities.insert(capability, FieldValue::Bool(true));
    }
    let capabilities = capabilities.build();
    let broker = concat!("Leveret ", env!("CARGO_PKG_VERSION"));
    let text = |text: &'static str| FieldValue::LongStr(text.as_bytes());
    FieldTableBuilder::new()
        .with("broker", text(broker))
        .with("capabilities", FieldValue::Table(capabilities.as_ref()))
        .with("cluster_name", FieldValue::LongStr(cluster_name.as_bytes()))
        .with("copyright", text("Copyright (c) the Leveret authors"))
        .with("information", text("Licensed under the Apache License 2.0 or the MIT license"))
        .with("platform", text("Rust"))
        .with("product", text("RabbitMQ"))
        .with("version", text(RABBITMQ_VERSION))
        .build()
}
