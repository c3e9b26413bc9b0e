//! Definitions: the whole node, or one virtual host, as a file; out and in.

use super::auth::Access;
use super::call::Call;
use super::response::{ApiError, Outcome, empty, json_bytes, set};
use super::route::{Route, get, post};
use crate::broker::control::{ControlReply, ControlRequest};
use crate::broker::definitions::{DefinitionsError, Missing, ParseOptions, Plan, Scope, Step};
use bytes::Bytes;
use hyper::{StatusCode, header};

/// Steps that are applied at a time: between two such slices the event loop serves clients.
const SLICE_LEN: usize = 100;

pub(super) const ROUTES: &[Route] = &[
    Route {
        path: "/api/definitions",
        verbs: &[
            get(Access::Administrator, "Definitions of the node", |call| Box::pin(export(call))),
            post(Access::Administrator, "Adds definitions to the node", |call| {
                Box::pin(import(call))
            }),
        ],
    },
    Route {
        path: "/api/all-configuration",
        verbs: &[
            get(Access::Administrator, "Definitions of the node", |call| Box::pin(export(call))),
            post(Access::Administrator, "Adds definitions to the node", |call| {
                Box::pin(import(call))
            }),
        ],
    },
    Route {
        path: "/api/definitions/{vhost}",
        verbs: &[
            get(Access::Administrator, "Definitions of a virtual host", |call| {
                Box::pin(export(call))
            }),
            post(Access::Administrator, "Adds definitions to a virtual host", |call| {
                Box::pin(import(call))
            }),
        ],
    },
];

/// Refuses a virtual host there is none of; here that is a bad request.
async fn check_vhost(call: &Call) -> Result<(), ApiError> {
    let Some(vhost) = call.find("vhost") else { return Ok(()) };
    match call.control().vhost(vhost).await {
        Err(ApiError::NotFound) => Err(ApiError::bad_request("vhost_not_found")),
        outcome => outcome.map(|_| ()),
    }
}

async fn export(call: Call) -> Outcome {
    check_vhost(&call).await?;
    let reply = call.order(ControlRequest::Export { vhost: call.vhost() }).await?;
    let ControlReply::Text(text) = reply else {
        panic!("an export was answered by {reply:?}");
    };
    let mut response = json_bytes(text.into_bytes());
    if let Some(name) = call.query.get("download") {
        let name = name.replace(['"', '\r', '\n'], "");
        set(&mut response, header::CONTENT_DISPOSITION, &format!("attachment; filename={name}"));
    }
    Ok(response)
}

fn refused(error: &DefinitionsError) -> ApiError {
    ApiError::BadRequest(error.reason())
}

async fn import(call: Call) -> Outcome {
    check_vhost(&call).await?;
    let scope = call.vhost().map_or(Scope::Node, |name| Scope::Vhost(name.into()));
    let options = ParseOptions {
        scope,
        validator: call.server.settings.credentials.validator.clone(),
        algorithm: call.server.settings.credentials.algorithm,
        acting_user: call.principal.name().into(),
    };
    let plan = Plan::parse(file(&call)?.to_vec(), options).map_err(|error| refused(&error))?;
    let vhosts = call.control().vhosts().await?;
    let users = call.control().users().await?;
    plan.check_references(|missing| match missing {
        Missing::Vhost(name) => vhosts.iter().any(|row| *row.name == **name),
        Missing::User(name) => users.iter().any(|row| *row.name == **name),
    })
    .map_err(|error| refused(&error))?;
    for warning in plan.warnings() {
        tracing::warn!("definitions: {warning}");
    }
    let mut index = 0;
    while index < plan.len() {
        let end = plan.len().min(index + SLICE_LEN);
        let steps: Vec<Step> = (index..end).map(|index| plan.step(index)).collect();
        call.order(ControlRequest::Apply { steps }).await?;
        index = end;
    }
    Ok(empty(StatusCode::NO_CONTENT))
}

/// The file: the body, or the part of a form that is called `file`.
fn file(call: &Call) -> Result<Bytes, ApiError> {
    let kind = call.headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let boundary = kind
        .filter(|kind| kind.starts_with("multipart/form-data"))
        .and_then(|kind| kind.split(';').find_map(|part| part.trim().strip_prefix("boundary=")));
    match boundary {
        None => Ok(call.body.clone()),
        Some(boundary) => form_part(&call.body, boundary.trim_matches('"'))
            .ok_or_else(|| ApiError::bad_request("failed_to_parse_json")),
    }
}

/// The contents of the part called `file`.
fn form_part(body: &Bytes, boundary: &str) -> Option<Bytes> {
    let delimiter = format!("--{boundary}");
    let mut starts = positions(body, delimiter.as_bytes());
    let mut start = starts.next()?;
    for end in starts {
        let part = body.slice(start + delimiter.len()..end);
        let head_end = positions(&part, b"\r\n\r\n").next()?;
        let head = String::from_utf8_lossy(&part[..head_end]);
        if head.contains("name=\"file\"") {
            // The line break in front of the delimiter belongs to it.
            return Some(part.slice(head_end + 4..part.len().saturating_sub(2).max(head_end + 4)));
        }
        start = end;
    }
    None
}

/// Where `needle` begins in `bytes`.
fn positions<'a>(bytes: &'a [u8], needle: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    let windows = bytes.windows(needle.len().max(1)).enumerate();
    windows.filter(move |(_, window)| *window == needle).map(|(index, _)| index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_found_in_a_form() {
        let body = "--b\r\ncontent-disposition: form-data; name=\"x\"\r\n\r\n1\r\n\
                    --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d.json\"\r\n\
                    Content-Type: application/json\r\n\r\n{\"a\":1}\r\n--b--\r\n";
        let body = Bytes::from_static(body.as_bytes());
        assert_eq!(form_part(&body, "b").as_deref(), Some(&b"{\"a\":1}"[..]));
        assert_eq!(form_part(&body, "c"), None);
        assert_eq!(form_part(&Bytes::from_static(b"--b\r\n--b"), "b"), None);
    }
}
