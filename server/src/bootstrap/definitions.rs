//! What a node begins with: the definitions it is configured with, or else, where nothing was ever
//! defined, one user and one virtual host. All of it is durable before anybody is let in.

use std::io;
use std::path::{Path, PathBuf};

use base64::prelude::{BASE64_STANDARD, Engine as _};
use leveret_engine::Engine;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{StartError, failed, with_context};
use crate::broker::Broker;
use crate::broker::definitions::{Missing, ParseOptions, Plan, Problem, Scope, Step};
use crate::broker::limits::UserLimits;
use crate::broker::permission::Permission;
use crate::broker::user::password::{PasswordHash, SALT_LEN};
use crate::broker::user::{Tags, User};
use crate::config::{Config, Seed};
use crate::shell::clock::Clock;

/// Who RabbitMQ says imported definitions at start.
const ACTING_USER: &str = "rmq-internal";
/// The global parameter that remembers what was imported, RabbitMQ's name.
const HASH_PARAMETER: &str = "imported_definition_hash_value";

/// Imports what is configured, or makes the first user and virtual host.
///
/// # Errors
/// The file, the entry and what is wrong with it; nothing was imported then. Or the log's.
pub(super) fn prepare(
    config: &Config,
    broker: &mut Broker,
    engine: &mut Engine,
    clock: &mut Clock,
) -> Result<(), StartError> {
    match &config.definitions.path {
        Some(path) => import(path, config.definitions.skip_if_unchanged, broker, engine, clock)?,
        None if broker.is_empty() => seed(&config.seed, broker, engine, clock)?,
        None => return Ok(()),
    }
    engine.sync().map_err(failed("cannot write the definitions"))
}

fn import(
    path: &Path,
    skip_if_unchanged: bool,
    broker: &mut Broker,
    engine: &mut Engine,
    clock: &mut Clock,
) -> Result<(), StartError> {
    let cannot_read =
        |path: &Path| failed(format!("cannot read the definitions {}", path.display()));
    let mut hash = Sha256::new();
    let mut plans = Vec::new();
    for file in files(path).map_err(cannot_read(path))? {
        let text = std::fs::read(&file).map_err(cannot_read(&file))?;
        hash.update(&text);
        let options = ParseOptions {
            scope: Scope::Node,
            validator: broker.node_settings().validator.clone(),
            algorithm: broker.node_settings().algorithm,
            acting_user: ACTING_USER.into(),
        };
        let plan = Plan::parse(text, options).map_err(|error| refused(&file, &error))?;
        plans.push((file, plan));
    }
    let hash = Value::from(BASE64_STANDARD.encode(hash.finalize()));
    if skip_if_unchanged && broker.global_parameter(HASH_PARAMETER) == Some(&hash) {
        tracing::info!(path = %path.display(), "definitions unchanged since their last import");
        return Ok(());
    }
    for (file, plan) in &plans {
        // Nothing reaches the disk before the last entry was applied.
        apply(file, plan, broker, engine, clock)?;
    }
    if skip_if_unchanged {
        let step = Step::GlobalParameter { name: HASH_PARAMETER.into(), value: hash };
        with_context(broker, engine, clock, |broker, ctx| broker.apply(step, ctx))
            .map_err(|exception| StartError(exception.text))?;
    }
    Ok(())
}

/// A file, or the `*.json` of a folder in the order of their names.
fn files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path)? {
        files.push(entry?.path());
    }
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    Ok(files)
}

fn refused(file: &Path, error: &dyn std::fmt::Display) -> StartError {
    StartError(format!("the definitions {} are refused: {error}", file.display()))
}

fn apply(
    file: &Path,
    plan: &Plan,
    broker: &mut Broker,
    engine: &mut Engine,
    clock: &mut Clock,
) -> Result<(), StartError> {
    plan.check_references(|missing| match missing {
        Missing::Vhost(name) => broker.has_vhost(name),
        Missing::User(name) => broker.has_user(name),
    })
    .map_err(|error| refused(file, &error))?;
    for warning in plan.warnings() {
        tracing::warn!("definitions: {warning}");
    }
    for (index, step) in plan.steps().enumerate() {
        with_context(broker, engine, clock, |broker, ctx| broker.apply(step, ctx)).map_err(
            |exception| refused(file, &plan.refuse(index, Problem::Invalid(exception.text))),
        )?;
    }
    tracing::info!(file = %file.display(), entries = plan.len(), "definitions imported");
    Ok(())
}

/// Makes the first user and virtual host.
fn seed(
    seed: &Seed,
    broker: &mut Broker,
    engine: &mut Engine,
    clock: &mut Clock,
) -> Result<(), StartError> {
    let [a, b, c, d, ..] = clock.entropy().to_le_bytes();
    let salt: [u8; SALT_LEN] = [a, b, c, d];
    let algorithm = broker.node_settings().algorithm;
    let user = User {
        name: seed.user.as_str().into(),
        password: PasswordHash::new(algorithm, salt, seed.password.reveal()),
        tags: Tags::new(seed.tags().iter().map(String::as_str))
            .map_err(failed("default_user_tags"))?,
        limits: UserLimits::default(),
    };
    let permission = Permission::new(&seed.configure, &seed.write, &seed.read)
        .map_err(failed("default_permissions"))?;
    with_context(broker, engine, clock, |broker, ctx| {
        broker.seed(&seed.vhost, user, permission, ctx)
    })
    .map_err(|exception| {
        StartError(format!("cannot make the first user and virtual host: {}", exception.text))
    })?;
    tracing::info!(user = %seed.user, vhost = %seed.vhost, "made the first user and virtual host");
    Ok(())
}
