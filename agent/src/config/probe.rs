//! `[resources.NAME.probe]`

use std::{num::NonZeroU16, time::Duration};

use hyper::Uri;
use rustls::pki_types::ServerName;
use serde_spanned::Spanned;
use toml::de::DeValue;

use super::{
    Check, HttpCheck, Probe, Tls,
    section::Section,
    settings::Context,
    values::{describe, duration, flag, shown, string, text, whole},
};

const MAX_INTERVAL: Duration = Duration::from_secs(3600);
const MAX_KEYWORD: usize = 1024;

/// Keys that say something about a page.
const PAGE_KEYS: [&str; 3] = ["status", "keyword", "verify"];

/// `None`: something is wrong and has been reported.
pub(super) fn probe(section: &mut Section<'_>, context: &Context) -> Option<Probe> {
    if section.is_absent() {
        return None;
    }
    let check = check(section, context);
    let interval = section.or("interval", Duration::from_secs(1), duration(Duration::from_millis(10)..=MAX_INTERVAL));
    let timeout = section.get("timeout", duration(Duration::from_millis(1)..=MAX_INTERVAL));
    if let Some(timeout) = timeout.as_ref().filter(|timeout| *timeout.get_ref() > interval) {
        let message = "longer than the interval; a try must end before the next begins";
        section.report(&timeout.span(), "timeout", message);
    }
    let default_timeout = interval.min(Duration::from_millis(500));
    let rise = section.or("rise", 2, whole(1..=100));
    let fall = section.or("fall", 3, whole(1..=100));
    section.finish();
    Some(Probe { check: check?, interval, timeout: timeout.map_or(default_timeout, Spanned::into_inner), rise, fall })
}

fn check(section: &mut Section<'_>, context: &Context) -> Option<Check> {
    let tcp = section.get("tcp", flag);
    let url = section.get("url", url);
    let status = section.get("status", status);
    let keyword = section.get("keyword", keyword);
    let verify = section.get("verify", |value| match text(value)? {
        "system" => Ok(Tls::System),
        "none" => Ok(Tls::Unverified),
        _ => context.path()(value).map(Tls::Roots),
    });
    match (section.has("tcp"), section.has("url")) {
        (true, true) => {
            let message = "tcp and url exclude each other; keep one of them";
            section.report(&section.span_of("tcp"), "tcp", message);
        }
        (false, true) => {
            let Url { host, path, tls } = url?.into_inner();
            if !tls && section.has("verify") {
                let message = "only a https page has a certificate; remove it, or write url = \"https://…\"";
                section.report(&section.span_of("verify"), "verify", message);
            }
            let keyword = keyword.map(|keyword| {
                let site = context.site.as_deref().unwrap_or_default();
                keyword.into_inner().replace("{site}", site)
            });
            return Some(Check::Http(HttpCheck {
                tls: tls.then(|| verify.map_or(Tls::System, Spanned::into_inner)),
                host,
                path,
                status: status.map_or_else(|| vec![200], Spanned::into_inner),
                keyword,
            }));
        }
        (true, false) if tcp.is_none() => {}
        (true, false) if tcp.is_some_and(Spanned::into_inner) => {
            for key in PAGE_KEYS.into_iter().filter(|key| section.has(key)) {
                let message = "a TCP probe fetches no page; remove it, or write url instead of tcp";
                section.report(&section.span_of(key), key, message);
            }
            return Some(Check::Tcp);
        }
        _ => section.report(
            section.span(),
            "",
            "does not say what to try; write tcp = true or url = \"http://HOST/PATH\"",
        ),
    }
    None
}

/// What a probe's URL says.
struct Url {
    /// With the port, if the URL names one.
    host: String,
    path: String,
    tls: bool,
}

fn url(value: &DeValue<'_>) -> Result<Url, String> {
    let text = text(value)?;
    let wrong = |why: &str| format!("{} {why}", shown(text));
    let right = "is not a URL; write it like \"http://www.shop.test/page\"";
    let uri: Uri = text.parse().map_err(|_| wrong(right))?;
    let tls = match uri.scheme_str() {
        Some("http") => false,
        Some("https") => true,
        Some(_) => return Err(wrong("is neither http nor https")),
        None => return Err(wrong(right)),
    };
    let authority = uri.authority().ok_or_else(|| wrong(right))?;
    if authority.as_str().contains('@') {
        return Err(wrong("holds a user's name, which probes do not send; remove it"));
    }
    if text.contains('#') {
        return Err(wrong("holds a fragment, which is never sent; remove it"));
    }
    let name = authority.host().trim_matches(['[', ']']);
    let port = &authority.as_str()[authority.host().len()..];
    let no_port = |port: &str| port.parse::<NonZeroU16>().is_err();
    if name.is_empty() || port.strip_prefix(':').is_some_and(no_port) {
        return Err(wrong(right));
    }
    if tls && ServerName::try_from(name).is_err() {
        return Err(wrong("names no host that a certificate could be for"));
    }
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    // A URL may go from its host to its query at once; a request may not (RFC 9112 §3.2.1).
    let slash = if path.starts_with('/') { "" } else { "/" };
    Ok(Url { host: authority.as_str().to_owned(), path: format!("{slash}{path}"), tls })
}

/// One status code or several.
fn status(value: &DeValue<'_>) -> Result<Vec<u16>, String> {
    let code = whole(200..=599);
    match value {
        DeValue::Array(codes) if codes.is_empty() => {
            Err("empty; write the status codes that are right, like [200, 204]".to_owned())
        }
        DeValue::Array(codes) => codes.iter().map(|value| code(value.get_ref())).collect(),
        DeValue::Integer(_) => code(value).map(|code| vec![code]),
        other => Err(format!("found {}, expected a status code like 200, or a list of them", describe(other))),
    }
}

fn keyword(value: &DeValue<'_>) -> Result<String, String> {
    let keyword = string(value)?;
    match keyword.len() {
        0 => Err("empty, which every page contains; write a word of the page".to_owned()),
        1..=MAX_KEYWORD => Ok(keyword),
        _ => Err(format!("longer than {MAX_KEYWORD} bytes")),
    }
}
