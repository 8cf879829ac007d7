//! Addresses: which part of a URL may be shown, which origin it belongs to, and where a redirect may lead.
//!
//! Layer 3 (effects), yet pure itself. Must never let a user name, a password or a query reach a text that a
//! person or a log sees: [`shown`] is the one way from a URL to a message.

use url::Url;

use super::NetError;

/// A URL as it may be shown: without user name, password, query and fragment, since tokens live there.
pub fn shown(url: &Url) -> String {
    let mut url = bare(url);
    url.set_query(None);
    url.into()
}

/// The URL that goes on the wire: user name and password travel as a header, a fragment not at all.
pub(super) fn bare(url: &Url) -> Url {
    let mut url = url.clone();
    // These two fail for URLs that have no host, and such a URL has no user name either.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.set_fragment(None);
    url
}

/// Scheme, host and port: what a credential is given for.
pub(super) fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// Where a redirect leads. A user name that the server put into it is dropped.
///
/// # Errors
/// [`NetError::Redirect`] for what is not a URL, leaves HTTP, or goes from https to http.
pub(super) fn next_hop(from: &Url, location: &[u8]) -> Result<Url, NetError> {
    let refuse = |why: String| NetError::Redirect { url: shown(from), why };
    let text = std::str::from_utf8(location).map_err(|_| refuse("to something that is not text".into()))?;
    let to = from.join(text).map_err(|_| refuse("to something that is not a URL".into()))?;
    match (from.scheme(), to.scheme()) {
        ("https", "http") => Err(refuse(format!("from https to http ({})", shown(&to)))),
        (_, "http" | "https") => Ok(bare(&to)),
        (_, scheme) => Err(refuse(format!("from {} to `{scheme}:`", from.scheme()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> Url {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_shown_holds_no_secret() {
        for (given, expected) in [
            ("https://host/a/b.whl", "https://host/a/b.whl"),
            ("https://me:secret@host:8443/a?token=secret&x=1#sig=secret", "https://host:8443/a"),
            ("https://secret@host/", "https://host/"),
            ("https://bucket/f?X-Amz-Signature=secret&sig=secret", "https://bucket/f"),
            ("file:///srv/wheels/a.whl", "file:///srv/wheels/a.whl"),
            ("mailto:someone", "mailto:someone"),
        ] {
            assert_eq!(shown(&url(given)), expected);
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        assert_eq!(origin(&url("https://u:p@host/a?b")), origin(&url("https://HOST:443/other")));
        for other in ["http://host/", "https://host:444/", "https://host.example/", "https://sub.host/"] {
            assert_ne!(origin(&url("https://host/")), origin(&url(other)));
        }
    }

    #[test]
    fn redirects_lead_only_where_they_may() {
        let from = url("https://host/a/b?token=secret");
        for (location, expected) in [
            ("/c", "https://host/c"),
            ("c?d=1#e", "https://host/a/c?d=1"),
            ("//other/c", "https://other/c"),
            ("https://me:pass@other/c", "https://other/c"),
        ] {
            assert_eq!(next_hop(&from, location.as_bytes()).unwrap().as_str(), expected);
        }
        assert_eq!(next_hop(&url("http://host/"), b"https://host/").unwrap().as_str(), "https://host/");
        for (location, why) in [
            (&b"http://host/a?sig=secret"[..], "https://host/a/b redirects from https to http (http://host/a)"),
            (b"file:///etc/passwd", "https://host/a/b redirects from https to `file:`"),
            (b"https://", "https://host/a/b redirects to something that is not a URL"),
            (b"\xff\xfe", "https://host/a/b redirects to something that is not text"),
        ] {
            assert_eq!(next_hop(&from, location).unwrap_err().to_string(), why);
        }
    }
}
