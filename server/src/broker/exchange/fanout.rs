//! `fanout`: to all bindings, whatever their keys and arguments.

use super::super::binding::Chain;
use super::super::router::Trail;
use super::Visit;

/// To all bindings.
pub(super) fn route(visit: &Visit<'_>, trail: &mut Trail<'_>) {
    for (_, binding) in visit.bindings.chain(Chain::Source, visit.outgoing.first) {
        trail.follow(binding.destination);
    }
}
