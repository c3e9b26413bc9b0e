//! `x-local-random`: to one of the bound queues of this node, which here are all.

use super::super::binding::{BindingRequest, DestinationName};
use super::super::exception::{Exception, Outcome};
use super::super::router::Trail;
use super::Visit;
use super::random::Random;

/// # Errors
/// 406: only queues can be bound, with the empty key.
pub(super) fn check_binding(request: &BindingRequest<'_>) -> Outcome {
    if !request.key.is_empty() {
        return Err(Exception::precondition(format!(
            "Non empty binding '{}' key not permitted",
            request.key
        )));
    }
    match request.destination {
        DestinationName::Queue(_) => Ok(()),
        DestinationName::Exchange(_) => Err(Exception::precondition("Destination not found")),
    }
}

/// To one queue.
pub(super) fn route(random: &Random, visit: &Visit<'_>, trail: &mut Trail<'_>) {
    random.route(visit, trail);
}
