//! What keeps a page, and what it shows, from other pages in the reader's browser.

use std::net::IpAddr;

use hyper::header::{
    HeaderMap, HeaderName, HeaderValue, CACHE_CONTROL, CONTENT_SECURITY_POLICY, HOST, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use hyper::Response;

/// Keeps pages of other servers from embedding an answer, also as what it is not.
const RESOURCE_POLICY: HeaderName = HeaderName::from_static("cross-origin-resource-policy");

/// Why a request is not answered that [`is_addressed`] turns down; a sentence about what to do follows.
pub const NOT_ADDRESSED: &str = "this server is not called what the Host header says; use its address";

/// Whether a request means this server: its `Host` is an IP address, `localhost` or one of `names`, each with any port. Another name may
/// be one that a stranger's page lets point here, so that the browser takes both for the same server (DNS rebinding); no browser
/// leaves the header out.
pub fn is_addressed(headers: &HeaderMap, names: &[String]) -> bool {
    headers.get_all(HOST).iter().all(|host| host.to_str().is_ok_and(|host| is_own(host, names)))
}

fn is_own(host: &str, names: &[String]) -> bool {
    let host = host.trim();
    let (name, port) = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, port)) => (address, port),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let has_port = port.is_empty()
        || port.strip_prefix(':').is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    let is_bracketed = host.starts_with('[');
    // A link-local address may name an interface of the caller's, which means nothing here.
    let name = if is_bracketed { name.split('%').next().unwrap_or(name) } else { name };
    let name = name.strip_suffix('.').unwrap_or(name);
    has_port
        && match name.parse::<IpAddr>() {
            Ok(address) => address.is_ipv6() == is_bracketed,
            Err(_) => {
                let is_name = |own: &String| own.eq_ignore_ascii_case(name);
                !is_bracketed && (name.eq_ignore_ascii_case("localhost") || names.iter().any(is_name))
            }
        }
}

/// What the kernel calls this host.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim().to_string()).filter(|name| !name.is_empty() && name != "(none)")
}

/// What tells the page's own style and script from others, new for each answer; `None` if the kernel has no random numbers.
pub fn nonce() -> Option<String> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok()?;
    Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Adds the headers to an answer; with `nonce` it is the page itself, else data.
pub fn protect<B>(response: &mut Response<B>, nonce: Option<&str>) {
    let headers = response.headers_mut();
    let own = nonce.map_or_else(String::new, |nonce| {
        // The picture is the empty one that stands for an icon, so that browsers do not ask for one.
        format!("style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; ")
    });
    let policy =
        format!("default-src 'none'; {own}base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        headers.insert(CONTENT_SECURITY_POLICY, policy);
    }
    for (name, value) in [
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
        (CACHE_CONTROL, "no-store"),
        (RESOURCE_POLICY, "same-origin"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
