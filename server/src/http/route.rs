//! Which path and method lead to which handler, and who may take them.
//!
//! Each resource lists its routes beside its handlers; [`find`] searches all of them. The same list
//! answers `OPTIONS`, words `405`, and becomes the `OpenAPI` description, so none can disagree.

use super::auth::Access;
use super::call::Call;
use super::response::{ApiError, Outcome};
use hyper::Method;
use std::future::{Future, ready};
use std::pin::Pin;

/// A handler, started.
pub(crate) type Handling = Pin<Box<dyn Future<Output = Outcome>>>;

/// Starts a handler.
pub(crate) type Handler = fn(Call) -> Handling;

/// One path and what can be done there.
pub(crate) struct Route {
    /// Segments; `{name}` takes any one segment.
    pub(crate) path: &'static str,
    /// One entry for each method.
    pub(crate) verbs: &'static [Verb],
}

/// The methods the API has. `Get` serves `HEAD` as well, and `OPTIONS` is answered for all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouteMethod {
    Get,
    Post,
    Put,
    Delete,
}

impl RouteMethod {
    fn of(method: &Method) -> Option<RouteMethod> {
        match *method {
            Method::GET | Method::HEAD => Some(RouteMethod::Get),
            Method::POST => Some(RouteMethod::Post),
            Method::PUT => Some(RouteMethod::Put),
            Method::DELETE => Some(RouteMethod::Delete),
            _ => None,
        }
    }

    /// As `allow` headers name it.
    fn names(self) -> &'static [&'static str] {
        match self {
            RouteMethod::Get => &["HEAD", "GET"],
            RouteMethod::Post => &["POST"],
            RouteMethod::Put => &["PUT"],
            RouteMethod::Delete => &["DELETE"],
        }
    }
}

/// One method of a route.
pub(crate) struct Verb {
    /// Which.
    pub(crate) method: RouteMethod,
    /// Who may.
    pub(crate) access: Access,
    /// What it does, in a few words.
    pub(crate) summary: &'static str,
    /// What runs.
    pub(crate) handler: Handler,
}

/// A handler that was done at once.
pub(crate) fn done(outcome: Outcome) -> Handling {
    Box::pin(ready(outcome))
}

/// A `GET`.
pub(crate) const fn get(access: Access, summary: &'static str, handler: Handler) -> Verb {
    Verb { method: RouteMethod::Get, access, summary, handler }
}

/// A `PUT`.
pub(crate) const fn put(access: Access, summary: &'static str, handler: Handler) -> Verb {
    Verb { method: RouteMethod::Put, access, summary, handler }
}

/// A `POST`.
pub(crate) const fn post(access: Access, summary: &'static str, handler: Handler) -> Verb {
    Verb { method: RouteMethod::Post, access, summary, handler }
}

/// A `DELETE`.
pub(crate) const fn delete(access: Access, summary: &'static str, handler: Handler) -> Verb {
    Verb { method: RouteMethod::Delete, access, summary, handler }
}

/// A route that was found, with the values of its parameters.
pub(crate) struct Found {
    pub(crate) route: &'static Route,
    pub(crate) parameters: Vec<(&'static str, String)>,
}

/// The first route that fits the segments. Literal segments are listed before parameters.
pub(crate) fn find(
    routes: impl Iterator<Item = &'static Route>,
    segments: &[String],
) -> Option<Found> {
    for route in routes {
        if let Some(parameters) = fit(route.path, segments) {
            return Some(Found { route, parameters });
        }
    }
    None
}

fn fit(path: &'static str, segments: &[String]) -> Option<Vec<(&'static str, String)>> {
    let mut parameters = Vec::new();
    let mut wanted = path.split('/').filter(|part| !part.is_empty());
    for segment in segments {
        let part = wanted.next()?;
        match part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            Some(name) => parameters.push((name, segment.clone())),
            None if part == segment => {}
            None => return None,
        }
    }
    wanted.next().is_none().then_some(parameters)
}

impl Route {
    /// The entry of a method, or 405 with those there are.
    pub(crate) fn verb(&self, method: &Method) -> Result<&'static Verb, ApiError> {
        let verbs: &'static [Verb] = self.verbs;
        RouteMethod::of(method)
            .and_then(|method| verbs.iter().find(|verb| verb.method == method))
            .ok_or_else(|| ApiError::MethodNotAllowed(self.allow()))
    }

    /// The methods, as an `allow` header lists them.
    pub(crate) fn allow(&self) -> String {
        let order = [RouteMethod::Get, RouteMethod::Post, RouteMethod::Put, RouteMethod::Delete];
        let mut names: Vec<&str> = order
            .into_iter()
            .filter(|method| self.verbs.iter().any(|verb| verb.method == *method))
            .flat_map(RouteMethod::names)
            .copied()
            .collect();
        names.push("OPTIONS");
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_fit_segment_by_segment() {
        let check = |path, segments: &[&str], expected: Option<&[(&'static str, &str)]>| {
            let segments: Vec<String> = segments.iter().map(ToString::to_string).collect();
            let expected = expected.map(|pairs| {
                pairs.iter().map(|(name, value)| (*name, (*value).to_owned())).collect::<Vec<_>>()
            });
            assert_eq!(fit(path, &segments), expected, "{path} {segments:?}");
        };
        check("/api/queues/{vhost}", &["api", "queues", "/"], Some(&[("vhost", "/")]));
        check("/api/queues/{vhost}", &["api", "queues"], None);
        check("/api/queues/{vhost}", &["api", "queues", "/", "q"], None);
        check("/api/{a}/x/{b}", &["api", "1", "x", "2"], Some(&[("a", "1"), ("b", "2")]));
        check("/api/{a}/x/{b}", &["api", "1", "y", "2"], None);
        check("/", &[], Some(&[]));
        check("/", &["x"], None);
    }
}
