//! Users: made, listed, given passwords, tags and limits, deleted.

use super::client::segment;
use super::command::{Command, Group, Needs, Session};
use super::failure::{EX_DATAERR, EX_NOUSER, EX_SOFTWARE, EX_UNAVAILABLE, Failure};
use super::lists::{self, Kind};
use super::output::Format;
use super::secret;
use super::tool::Tool::{Diagnostics, Rabbitmqctl};
use crate::broker::limits::UserLimits;
use crate::broker::user::password::{HashingAlgorithm, PasswordHash};
use serde_json::{Value, json};

const CTL: &[super::Tool] = &[Rabbitmqctl];
const BOTH: &[super::Tool] = &[Rabbitmqctl, Diagnostics];

pub(super) const COMMANDS: &[Command] = &[
    Command::new(
        "add_user",
        CTL,
        Group::Users,
        "<username> [<password>] [--pre-hashed-password]",
        "Creates a user, which has no permissions at first",
        (1, 2),
        add,
    )
    .options(&["pre-hashed-password"]),
    Command::new(
        "delete_user",
        CTL,
        Group::Users,
        "<username>",
        "Deletes a user and closes its connections",
        (1, 1),
        delete,
    ),
    Command::new(
        "change_password",
        CTL,
        Group::Users,
        "<username> [<password>] [--pre-hashed-password]",
        "Gives a user another password",
        (1, 2),
        change_password,
    )
    .options(&["pre-hashed-password"]),
    Command::new(
        "clear_password",
        CTL,
        Group::Users,
        "<username>",
        "Takes a user's password away: no password logs it in",
        (1, 1),
        clear_password,
    ),
    Command::new(
        "authenticate_user",
        CTL,
        Group::Users,
        "<username> [<password>]",
        "Checks a user's password; exits with 65 if it is wrong",
        (1, 2),
        authenticate,
    ),
    Command::new(
        "hash_password",
        CTL,
        Group::Users,
        "[<password>]",
        "Hashes a password as definitions files hold it",
        (0, 1),
        hash_password,
    )
    .needs(Needs::Nothing),
    Command::new(
        "set_user_tags",
        CTL,
        Group::Users,
        "<username> [<tag> ...]",
        "Replaces the tags of a user; none takes all away",
        (1, 64),
        set_tags,
    ),
    Command::new(
        "list_users",
        BOTH,
        Group::Users,
        "[--no-table-headers] [--timeout <timeout>]",
        "Lists users and their tags",
        (0, 0),
        list,
    ),
    Command::new(
        "set_user_limits",
        CTL,
        Group::Users,
        "<username> <definition>",
        "Limits the connections and channels of a user",
        (2, 2),
        set_limits,
    ),
    Command::new(
        "clear_user_limits",
        CTL,
        Group::Users,
        "<username> <limit_type> | all",
        "Takes one limit of a user away, or all",
        (2, 2),
        clear_limits,
    ),
    Command::new(
        "list_user_limits",
        BOTH,
        Group::Users,
        "[--user <username>] [--global]",
        "Shows the limits of a user, or of all",
        (0, 0),
        list_limits,
    )
    .options(&["global", "user"]),
];

/// What is said when a user was made.
const ADDED: &str = "Done. Don't forget to grant the user permissions to some virtual hosts! See \
                     'rabbitmqctl help set_permissions' to learn more.";
const EMPTY_PASSWORD: &str = "password cannot be an empty string";
/// Whose limits are shown where no user is named, as in RabbitMQ.
const DEFAULT_USER: &str = "guest";

fn path(name: &str) -> String {
    format!("/users/{}", segment(name))
}

/// The user, who must be there.
fn existing(session: &Session<'_>, name: &str) -> Result<Value, Failure> {
    session
        .broker()
        .find(&path(name))?
        .ok_or_else(|| Failure::error(EX_NOUSER, format!("User \"{name}\" does not exist")))
}

/// The user, who must be there; said as RabbitMQ's server says it.
fn known(session: &Session<'_>, name: &str) -> Result<Value, Failure> {
    session.broker().find(&path(name))?.ok_or_else(|| no_such_user(name))
}

/// The server's word for a user there is none of.
pub(super) fn no_such_user(name: &str) -> Failure {
    Failure::error(EX_UNAVAILABLE, format!("{{:no_such_user, {name:?}}}"))
}

/// The password of a command line: behind the user's name, or typed when asked.
fn password(session: &mut Session<'_>, index: usize) -> Result<String, Failure> {
    let password = match session.words().get(index) {
        Some(word) => word.clone(),
        None => secret::ask(session)?,
    };
    if password.is_empty() {
        return Err(Failure::bad_argument(EMPTY_PASSWORD));
    }
    Ok(password)
}

/// The part of a user's body that is its password.
fn secret_field(session: &Session<'_>) -> &'static str {
    if session.arguments.flag("pre-hashed-password") { "password_hash" } else { "password" }
}

fn add(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    if name.is_empty() {
        return Err(Failure::bad_argument("user cannot be an empty string"));
    }
    if session.words().get(1).is_some_and(String::is_empty) {
        return Err(Failure::bad_argument(EMPTY_PASSWORD));
    }
    session.out.banner(&format!("Adding user \"{name}\" ..."))?;
    let password = password(session, 1)?;
    if session.broker().find(&path(name))?.is_some() {
        return Err(already_there(session, name)?);
    }
    let body = json!({secret_field(session): password, "tags": ""});
    session.broker().put(&path(name), &body)?;
    if session.out.format() != Format::Json {
        return Ok(session.out.remark(ADDED)?);
    }
    let json = json!({"message": ADDED, "node": session.node()?, "status": "ok"});
    Ok(session.out.result("", &json)?)
}

fn already_there(session: &Session<'_>, name: &str) -> Result<Failure, Failure> {
    if session.out.format() != Format::Json {
        return Ok(Failure::error(EX_SOFTWARE, format!("User \"{name}\" already exists")));
    }
    let message = format!("User {name} already exists");
    let json = json!({"message": message, "node": session.node()?, "result": "error"});
    Ok(Failure::Plain { code: EX_UNAVAILABLE, text: json.to_string() })
}

fn delete(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&format!("Deleting user \"{name}\" ..."))?;
    existing(session, name)?;
    session.broker().delete(&path(name))?;
    session.done()
}

fn change_password(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&format!("Changing password for user \"{name}\" ..."))?;
    let password = password(session, 1)?;
    let user = existing(session, name)?;
    let body = json!({secret_field(session): password, "tags": user["tags"]});
    session.broker().put(&path(name), &body)?;
    session.done()
}

fn clear_password(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&format!("Clearing password for user \"{name}\" ..."))?;
    let user = known(session, name)?;
    session.broker().put(&path(name), &json!({"password_hash": "", "tags": user["tags"]}))?;
    session.done()
}

/// The hash is compared here: a check of a password is no login, which the broker would count and
/// slow down.
fn authenticate(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    session.out.banner(&format!("Authenticating user \"{name}\" ..."))?;
    let password = password(session, 1)?;
    let user = session.broker().find(&path(name))?.unwrap_or_default();
    let text = |key: &str| user[key].as_str().unwrap_or_default();
    let fits = HashingAlgorithm::parse(text("hashing_algorithm"))
        .and_then(|algorithm| PasswordHash::from_base64(algorithm, text("password_hash")))
        .is_ok_and(|hash| hash.verify(password.as_bytes()));
    if !fits {
        let text = format!(
            "Error: failed to authenticate user \"{name}\"\nuser '{name}' - invalid credentials"
        );
        return Err(Failure::error(EX_DATAERR, text));
    }
    session.done_with("Success")
}

fn hash_password(session: &mut Session<'_>) -> Result<(), Failure> {
    let banner = match session.words().first() {
        Some(word) => format!("Will hash password {word}"),
        None => "Will hash provided password".to_owned(),
    };
    session.out.banner(&banner)?;
    let password = password(session, 0)?;
    let mut salt = [0; crate::broker::user::password::SALT_LEN];
    getrandom::fill(&mut salt)
        .map_err(|error| Failure::error(EX_SOFTWARE, format!("no random numbers: {error}")))?;
    let hash = PasswordHash::new(HashingAlgorithm::default(), salt, &password).to_base64();
    session.done_with(&hash)
}

fn set_tags(session: &mut Session<'_>) -> Result<(), Failure> {
    let name = session.argument(0);
    let tags = &session.words()[1..];
    session
        .out
        .banner(&format!("Setting tags for user \"{name}\" to [{}] ...", tags.join(", ")))?;
    let user = existing(session, name)?;
    let tags: Vec<&str> =
        tags.iter().flat_map(|word| word.split(',')).filter(|tag| !tag.is_empty()).collect();
    let body = json!({
        "password_hash": user["password_hash"],
        "hashing_algorithm": user["hashing_algorithm"],
        "tags": tags,
    });
    session.broker().put(&path(name), &body)?;
    session.done()
}

fn list(session: &mut Session<'_>) -> Result<(), Failure> {
    session.out.banner("Listing users ...")?;
    let rows = session.broker().get("/users?columns=name,tags")?;
    lists::print(session, &rows, &[("user", "name", Kind::Plain), ("tags", "tags", Kind::Words)])
}

/// The JSON of an argument.
pub(super) fn json_argument(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text)
        .map_err(|_| Failure::error(EX_UNAVAILABLE, "JSON decoding error. Reason: badarg"))
}

fn limits_path(name: &str) -> String {
    format!("/user-limits/{}", segment(name))
}

fn set_limits(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, definition) = (session.argument(0), session.argument(1));
    session
        .out
        .banner(&format!("Setting user limits to \"{definition}\" for user \"{name}\" ..."))?;
    let limits = json_argument(definition)?;
    UserLimits::from_json(&limits)
        .map_err(|error| Failure::error(EX_UNAVAILABLE, error.to_string()))?;
    known(session, name)?;
    for (limit, value) in limits.as_object().into_iter().flatten() {
        let path = format!("{}/{}", limits_path(name), segment(limit));
        session.broker().put(&path, &json!({"value": value}))?;
    }
    session.done()
}

fn clear_limits(session: &mut Session<'_>) -> Result<(), Failure> {
    let (name, limit) = (session.argument(0), session.argument(1));
    session.out.banner(&if limit == "all" {
        format!("Clearing all limits for user \"{name}\" ...")
    } else {
        format!("Clearing \"{limit}\" limit for user \"{name}\" ...")
    })?;
    let user = known(session, name)?;
    let all = user["limits"].as_object().into_iter().flatten().map(|(name, _)| name.as_str());
    let names: Vec<&str> = if limit == "all" { all.collect() } else { vec![limit] };
    for limit in names {
        session.broker().delete(&format!("{}/{}", limits_path(name), segment(limit)))?;
    }
    session.done()
}

fn list_limits(session: &mut Session<'_>) -> Result<(), Failure> {
    if session.arguments.flag("global") {
        session.out.banner("Listing limits for all users ...")?;
        let rows = session.broker().get("/user-limits")?;
        let columns = [("user", "user", Kind::Plain), ("limits", "value", Kind::Json)];
        return lists::print(session, &rows, &columns);
    }
    let name = session.arguments.option("user").unwrap_or(DEFAULT_USER);
    session.out.banner(&format!("Listing limits for user \"{name}\" ..."))?;
    let user = known(session, name)?;
    session.done_with(&user["limits"].to_string())
}
