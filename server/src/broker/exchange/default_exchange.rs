//! The exchange without a name: every queue is bound to it by its own name, implicitly.

use super::super::binding::Destination;
use super::super::router::Trail;
use super::Visit;

/// To the queues that the keys name.
pub(super) fn route(visit: &Visit<'_>, trail: &mut Trail<'_>) {
    for key in visit.message.keys {
        if let Some(queue) = visit.vhost.find_queue(key, visit.queues) {
            trail.follow(Destination::Queue(queue));
        }
    }
}
