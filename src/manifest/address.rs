//! Addresses that an author names: of a git repository, and of one file.
//!
//! Layer 1 (documents): pure. What passes here goes into a lock, onto a terminal and, as one argument, to a
//! helper program. Must never repeat an address that may hold a secret.

use url::{Host, Url};

use crate::path::ImagePath;
use crate::text::percent_decoded;

/// Longer ones are nobody's; servers refuse them too.
const MAX: usize = 2048;

/// Keys of a query that are, or sign, a permission: these exactly.
const SECRET_KEYS: &[&str] =
    &["sig", "sign", "key", "auth", "jwt", "session", "sessionid", "sid", "code", "pass", "pwd", "policy", "st", "se", "hdnea"];
/// … and every key that has one of these in it.
const SECRET_PARTS: &[&str] = &[
    "signature",
    "token",
    "secret",
    "password",
    "passwd",
    "credential",
    "apikey",
    "api_key",
    "api-key",
    "access_key",
    "access-key",
    "accesskey",
    "key-pair",
    "authorization",
    "x-amz-",
    "x-goog-",
    "x-ms-",
];

/// Where a git repository lies: https, http, ssh or git.
///
/// # Errors
/// What is wrong and what to write instead; an address that may hold a secret is not repeated.
pub fn repository(text: &str) -> Result<Url, String> {
    if let Some(better) = scp_form(text) {
        return Err(format!("expected an address such as `https://host/owner/name.git`, found scp's form: write `{better}`"));
    }
    let url = address(text, &["https", "http", "ssh", "git"])?;
    if url.query().is_some() {
        return Err("a repository's address has no query".into());
    }
    if url.username().starts_with('-') || url.host_str().is_some_and(|host| host.starts_with('-')) {
        return Err("no host or user name begins with `-`".into());
    }
    if url.path().trim_matches('/').is_empty() {
        return Err("expected an address such as `https://host/owner/name.git`, found a host alone".into());
    }
    Ok(url)
}

/// `git@host:owner/name` as an address, where a text has that form.
pub fn scp_form(text: &str) -> Option<String> {
    let (host, path) = text.split_once(':')?;
    let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte));
    let is_scp = plain(host) && host.contains('@') && !host.starts_with('-') && !path.starts_with([':', '/', '-']);
    (is_scp && !path.is_empty() && path.bytes().all(|byte| byte.is_ascii_graphic())).then(|| format!("ssh://{host}/{path}"))
}

/// Where one file lies, https or http, and the file's name.
///
/// # Errors
/// As for [`repository`]; also an address that ends in no name, or whose query is a permission.
pub fn file(text: &str) -> Result<(Url, ImagePath), String> {
    let url = address(text, &["https", "http"])?;
    if let Some((key, _)) = url.query_pairs().find(|(key, _)| is_secret_key(key)) {
        let key: String = key.chars().take(40).flat_map(char::escape_debug).collect();
        return Err(format!("the query's `{key}` is a permission, and a lock is for everybody: name an address that needs none"));
    }
    let last = url.path().rsplit('/').next().unwrap_or_default();
    let wants = "expected an address that ends in a file's name";
    let name = percent_decoded(last).ok_or_else(|| format!("{wants}: it is not UTF-8"))?;
    if name.contains(['/', '\\']) {
        return Err(format!("{wants}: the name holds a slash"));
    }
    let name = ImagePath::new(&name).map_err(|error| format!("{wants}: {error}"))?;
    Ok((url, name))
}

/// Whether what comes from there could be changed on the way: no TLS or ssh, and not this machine.
pub fn is_open(url: &Url) -> bool {
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        // A scheme that the URL standard does not know keeps its host as a text.
        None => false,
    };
    let local = local || url.host_str().and_then(|host| host.parse::<std::net::IpAddr>().ok()).is_some_and(|ip| ip.is_loopback());
    ["http", "git"].contains(&url.scheme()) && !local
}

/// A branch, a tag, a whole reference or a commit: what git takes as a name, so never an option or a pattern.
pub fn is_revision(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 255
        && !text.starts_with(['-', '/', '+', '.'])
        && !text.ends_with(['/', '.'])
        && !text.chars().any(|c| c.is_control() || c.is_whitespace() || "~^:?*[\\".contains(c))
        && !["..", "//", "@{", "/.", ".lock/"].iter().any(|part| text.contains(part))
        && text != "@"
        && !text.ends_with(".lock")
}

fn address(text: &str, schemes: &[&str]) -> Result<Url, String> {
    let wants = format!("expected an {} address", schemes[0]);
    if text.len() > MAX || !text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return Err(format!("{wants} of at most {MAX} ASCII characters without spaces and backslashes"));
    }
    let url = Url::parse(text).map_err(|error| format!("{wants}: {error}"))?;
    if !schemes.contains(&url.scheme()) || !text.starts_with(&format!("{}://", url.scheme())) {
        return Err(format!("{wants}, found scheme `{}`", url.scheme().chars().take(20).collect::<String>()));
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(format!("{wants}: it names no host"));
    }
    if url.password().is_some() || (!url.username().is_empty() && url.scheme() != "ssh") {
        return Err("an address has no user name, password or fragment here".into());
    }
    if url.fragment().is_some() {
        return Err("an address has no user name, password or fragment here".into());
    }
    Ok(url)
}

fn is_secret_key(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    SECRET_KEYS.contains(&key.as_str()) || SECRET_PARTS.iter().any(|part| key.contains(part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repositories() {
        for good in ["https://host/owner/name.git", "http://127.0.0.1:8080/a", "ssh://git@host:22/a/b", "git://host/a"] {
            assert_eq!(repository(good).unwrap().scheme(), good.split(':').next().unwrap());
        }
        for (bad, why) in [
            ("-uhelp", "expected an https address"),
            ("--upload-pack=x", "expected an https address"),
            ("ext::sh -c x", "without spaces"),
            ("ext::sh", "found scheme `ext`"),
            ("file:///srv/a", "found scheme `file`"),
            ("/srv/a", "expected an https address"),
            ("https:host/a", "found scheme `https`"),
            ("git@host:a/b", "write `ssh://git@host/a/b`"),
            ("https://me:hunter2@host/a", "no user name, password or fragment"),
            ("https://hunter2@host/a", "no user name, password or fragment"),
            ("ssh://git:hunter2@host/a", "no user name, password or fragment"),
            ("ssh://-oProxyCommand=x/a", ""),
            ("ssh://-oProxyCommand@host/a", "begins with `-`"),
            ("https://host/a?token=hunter2", "no query"),
            ("https://host/a#hunter2", "no user name, password or fragment"),
            ("https://host/", "a host alone"),
            ("https://host/a\\b", "backslashes"),
            ("https://host/a\nb", "without spaces"),
        ] {
            let error = repository(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn files() {
        for (good, name) in [
            ("https://host/a/b.bin", "b.bin"),
            ("https://host/a%20b.txt?download=true&v=2", "a b.txt"),
            ("http://127.0.0.1/%C3%A9", "é"),
            ("https://host/100%", "100%"),
        ] {
            assert_eq!(file(good).unwrap().1.as_str(), name);
        }
        for (bad, why) in [
            ("https://host/", "ends in a file's name"),
            ("https://host/a/", "ends in a file's name"),
            ("https://host/a%2Fb", "holds a slash"),
            ("https://host/..%2f..%2fb", "holds a slash"),
            ("https://host/%0a", "control character"),
            ("https://host/%ff", "not UTF-8"),
            ("ftp://host/a", "found scheme `ftp`"),
            ("file:///a", "found scheme `file`"),
            ("https://host/a?X-Amz-Signature=hunter2", "the query's `X-Amz-Signature`"),
            ("https://host/a?x=1&sig=hunter2", "the query's `sig`"),
            ("https://host/a?Access_Token=hunter2", "the query's `Access_Token`"),
            ("https://host/a?%73ig=hunter2", "the query's `sig`"),
            ("https://me:hunter2@host/a", "no user name, password or fragment"),
        ] {
            let error = file(bad).unwrap_err();
            assert!(error.contains(why), "{bad}: {error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn open_addresses() {
        for (text, open) in [
            ("http://host/a", true),
            ("git://host/a", true),
            ("git://127.0.0.1:9418/a", false),
            ("http://127.0.0.1/a", false),
            ("http://localhost/a", false),
            ("https://host/a", false),
            ("ssh://host/a", false),
        ] {
            assert_eq!(is_open(&Url::parse(text).unwrap()), open, "{text}");
        }
    }

    #[test]
    fn revisions() {
        for good in ["main", "v1.0", "feature/x-1", "refs/tags/v1", "0123456789012345678901234567890123456789", "a+b"] {
            assert!(is_revision(good), "{good}");
        }
        for bad in [
            "",
            "-x",
            "--upload-pack=x",
            "a b",
            "a..b",
            "a:b",
            "a^",
            "HEAD~1",
            "a*",
            "a\n",
            "@{u}",
            "@",
            "/a",
            "a/",
            "x.lock",
            "+a",
        ] {
            assert!(!is_revision(bad), "{bad}");
        }
    }
}
