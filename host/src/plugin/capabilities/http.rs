//! `wasi:http/outgoing-handler`: requests to where the route allows them.
//!
//! What is compared with `allow.http` is the URL that is then asked for, parsed once; redirects are the plugin's to follow, as requests
//! of their own; and a host's addresses are judged where they are resolved, so the connection goes to an address that was judged.

use super::{Capability, Grant};
use crate::causes::causes;
use crate::config::{Allow, Bounds, HttpAllow, Limits, Network, is_private};
use crate::plugin::error::GrantError;
use crate::plugin::gate::{Gate, Pass, Waits};
use crate::plugin::grants::Grants;
use crate::plugin::limits::size;
use crate::plugin::output::Source;
use http_body_util::{BodyDataStream, BodyExt, LengthLimitError, Limited};
use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::redirect::Policy;
use std::error::Error as _;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use wasmtime_wasi_http::{
    Error, RequestOptions, Result, WasiBody, WasiHttpCtx, WasiHttpCtxView, WasiHttpHooks, WasiHttpView,
};

pub(super) const CAPABILITY: Capability = Capability {
    interfaces: &["wasi:http/outgoing-handler@0.2.12", "wasi:http/types@0.2.12"],
    link: wasmtime_wasi_http::p2::add_only_http_to_linker_async,
    grant: Some(Grant { is_given: |allow| !allow.http.is_empty(), line: "allow = { http = [\"https://HOST/PATH\"] }" }),
};

/// How long a connection may take. A plugin may ask for less.
const CONNECT: Duration = Duration::from_secs(5);
/// What the headers of one request or response may take of the host's memory.
const HEADERS: usize = 32 * 1024;
/// Requests of a route at a time to each place that says nothing else: each is a connection.
const REQUESTS: usize = 32;
/// Connections that are kept for each host while nobody uses them.
const IDLE: usize = 8;

/// The HTTP client of one route.
#[derive(Debug)]
pub(in crate::plugin) struct Http {
    /// Absent where nothing is allowed.
    client: Option<reqwest::Client>,
    places: Vec<(HttpAllow, Gate)>,
    response: usize,
}

impl Http {
    pub(in crate::plugin) fn new(route: &str, allow: &Allow, limits: &Limits) -> std::result::Result<Http, GrantError> {
        let place = |place: &HttpAllow| {
            let gate = Gate::new(
                &Bounds { at_once: place.bounds.at_once.or(Some(REQUESTS)), ..place.bounds },
                "requests",
                &format!("{} in `allow.http` of route `{route}`", place.prefix),
            );
            (place.clone(), gate)
        };
        let client = (!allow.http.is_empty()).then(|| {
            reqwest::Client::builder()
                .redirect(Policy::none())
                .referer(false)
                .no_proxy()
                .connect_timeout(CONNECT)
                .pool_max_idle_per_host(IDLE)
                .dns_resolver(Arc::new(Resolver { route: route.to_owned(), networks: allow.networks.clone() }))
                .build()
        });
        Ok(Http {
            client: client.transpose().map_err(|e| GrantError::Http(causes(&e)))?,
            places: allow.http.iter().map(place).collect(),
            response: limits.response,
        })
    }

    /// The gate that a request passes, if it is allowed.
    fn gate(&self, url: &Url) -> Option<&Gate> {
        self.places.iter().find(|(place, _)| place.prefix.covers(url)).map(|(_, gate)| gate)
    }
}

/// Resolves names to the addresses that may be connected to.
struct Resolver {
    route: String,
    networks: Vec<Network>,
}

/// Every address of a host is private.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{host}` is at {addresses}, which is private; if that is meant, add `networks = [\"{first}\"]` to `allow` of route `{route}`"
)]
struct Private {
    host: String,
    addresses: String,
    first: IpAddr,
    route: String,
}

impl Resolver {
    fn may_connect(networks: &[Network], host: &str, address: IpAddr) -> bool {
        // `localhost` names this machine as an address would.
        let named = host.eq_ignore_ascii_case("localhost") && address.to_canonical().is_loopback();
        named || !is_private(address) || networks.iter().any(|network| network.contains(address))
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let (host, networks, route) = (name.as_str().to_owned(), self.networks.clone(), self.route.clone());
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((host.as_str(), 0)).await?.collect();
            let (open, private): (Vec<_>, Vec<_>) =
                found.into_iter().partition(|address| Resolver::may_connect(&networks, &host, address.ip()));
            match private.first() {
                Some(first) if open.is_empty() => {
                    let addresses: Vec<String> = private.iter().map(|address| address.ip().to_string()).collect();
                    Err(Private { addresses: addresses.join(", "), first: first.ip(), host, route }.into())
                }
                _ => Ok(Box::new(open.into_iter()) as Addrs),
            }
        })
    }
}

/// What one call's requests work on.
pub(in crate::plugin) struct State {
    context: WasiHttpCtx,
    hooks: Hooks,
}

struct Hooks {
    grants: Arc<Grants>,
    source: Arc<Source>,
    waits: Waits,
}

impl State {
    pub(in crate::plugin) fn new(grants: &Arc<Grants>, source: &Arc<Source>, waits: &Waits) -> State {
        let hooks = Hooks { grants: grants.clone(), source: source.clone(), waits: waits.clone() };
        let mut context = WasiHttpCtx::new();
        context.set_field_size_limit(HEADERS);
        State { context, hooks }
    }
}

impl WasiHttpView for super::State {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { hooks: &mut self.http.hooks, table: self.wasi.table(), ctx: &mut self.http.context }
    }
}

/// How the transmission of a response ends: with it, here.
type Transmission = Box<dyn Future<Output = Result<()>> + Send>;
type Response = hyper::Response<WasiBody>;

impl WasiHttpHooks for Hooks {
    fn send_request(
        &mut self,
        request: hyper::Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Transmission,
    ) -> Box<dyn Future<Output = Result<(Response, Transmission)>> + Send> {
        let (grants, source, waits) = (self.grants.clone(), self.source.clone(), self.waits.clone());
        Box::new(async move {
            let response = send(&grants, request, options, &waits).await;
            let response = response.inspect_err(|refused| {
                let Source { route, workflow, plugin, step } = source.as_ref();
                let (route, plugin) = (route.as_ref(), plugin.as_ref());
                tracing::warn!(target: "pawl::http", route, workflow, plugin, step, "HTTP request failed: {}", refused.reason);
            });
            let (response, pass) = response.map_err(|refused| refused.error)?;
            // Dropped with the response's body: until then the request is under way.
            let under_way = async move {
                let _pass = pass;
                std::future::pending().await
            };
            Ok((response, Box::new(under_way) as Transmission))
        })
    }
}

/// Why a request has no response: for the plugin, and for the log.
struct Refused {
    error: Error,
    reason: String,
}

async fn send(
    grants: &Grants,
    request: hyper::Request<WasiBody>,
    options: Option<RequestOptions>,
    waits: &Waits,
) -> std::result::Result<(Response, Pass), Refused> {
    let http = &grants.http;
    let url = Url::parse(&request.uri().to_string()).map_err(|e| Refused {
        reason: format!("`{}` is no URL: {e}", request.uri()),
        error: Error::HttpRequestUriInvalid,
    })?;
    let (Some(client), Some(gate)) = (&http.client, http.gate(&url)) else {
        let origin = url.origin().ascii_serialization();
        let route = &grants.route;
        return Err(Refused {
            reason: format!(
                "{origin}{} is not allowed; add \"{origin}\" to `allow.http` of route `{route}`",
                url.path()
            ),
            error: Error::HttpRequestDenied,
        });
    };
    let pass = gate.enter(waits).await;
    let (parts, body) = request.into_parts();
    let options = options.unwrap_or_default();
    let body = reqwest::Body::wrap_stream(BodyDataStream::new(body.map_err(|e| std::io::Error::other(e.to_string()))));
    let place = url.clone();
    let sent = client.request(parts.method, url).headers(parts.headers).body(body).send();
    // Until the head of the response: its body is bounded by the time of the call.
    let first_byte = options.first_byte_timeout.or(options.connect_timeout).unwrap_or(grants.limits.time);
    let response = match tokio::time::timeout(first_byte, sent).await {
        Ok(sent) => sent.map_err(|e| refused(&place, &e))?,
        Err(_elapsed) => {
            let reason = format!("{place} did not answer within {first_byte:?}");
            return Err(Refused { error: Error::ConnectionReadTimeout, reason });
        }
    };
    let too_large = || Error::HttpResponseBodySize(Some(http.response as u64));
    if response.content_length().is_some_and(|length| length > http.response as u64) {
        let reason = format!(
            "the response of {place} is larger than {}: raise `limits.response` of route `{}`",
            size(http.response),
            grants.route
        );
        return Err(Refused { error: too_large(), reason });
    }
    let limit = http.response;
    let response = hyper::Response::<reqwest::Body>::from(response).map(|body| {
        let body = Limited::new(body, limit).map_err(move |e| match e.downcast_ref::<LengthLimitError>() {
            Some(_) => Error::HttpResponseBodySize(Some(limit as u64)),
            None => Error::InternalError(Some(e.to_string())),
        });
        body.boxed_unsync()
    });
    Ok((response, pass))
}

fn refused(place: &Url, error: &reqwest::Error) -> Refused {
    let mut cause = error.source();
    while let Some(found) = cause {
        if found.downcast_ref::<Private>().is_some() {
            return Refused { error: Error::DestinationIpProhibited, reason: found.to_string() };
        }
        cause = found.source();
    }
    let reason = format!("{place}: {}", causes(error));
    let error = match error {
        e if e.is_timeout() => Error::ConnectionTimeout,
        e if e.is_connect() => Error::DestinationUnavailable,
        e => Error::InternalError(Some(e.to_string())),
    };
    Refused { error, reason }
}
