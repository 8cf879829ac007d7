//! Account: which Hub is asked, and who asks.
//!
//! Layer 3 (effects), part of the `hf` source: reads the environment and the Hub's own token file, as the Hub's own
//! client does. Must never show a token: hence no `Debug`, and no text that holds one leaves this file but to
//! [`crate::net::Net`].

#![allow(clippy::disallowed_methods, reason = "effects: reads the token file")]

use std::io::Read;
use std::path::PathBuf;

use url::Url;

use crate::net::Net;
use crate::regular::open_regular;
use crate::source::SourceError;
use crate::tool;

/// The Hub, where `HF_ENDPOINT` names no other.
const ENDPOINT: &str = "https://huggingface.co";
/// Bytes of a token file at most.
const TOKEN_CAP: u64 = 4096;

/// Where the Hub is, and what this user may show it.
pub struct Account {
    /// Its address, with a path where a mirror has one.
    pub endpoint: Url,
    /// `HF_HUB_OFFLINE` forbids asking it.
    pub offline: bool,
    /// The folder of the user's local cache of the Hub.
    pub cache: Option<PathBuf>,
    token: Option<String>,
}

impl Account {
    /// As the environment says.
    pub fn here() -> Result<Self, SourceError> {
        Self::of(&tool::variable)
    }

    /// As some variables say; a variable that is empty is not set.
    fn of(variable: &dyn Fn(&str) -> Option<String>) -> Result<Self, SourceError> {
        let text = variable("HF_ENDPOINT").unwrap_or_else(|| ENDPOINT.to_owned());
        let wrong = || {
            SourceError::new("HF_ENDPOINT is not the address of a Hub: expected one that begins with https:// or http://")
                .help("unset HF_ENDPOINT, or set it to the address of a mirror")
        };
        let mut endpoint = Url::parse(text.trim().trim_end_matches('/')).map_err(|_| wrong())?;
        if !matches!(endpoint.scheme(), "http" | "https") {
            return Err(wrong());
        }
        endpoint.set_query(None);
        endpoint.set_fragment(None);
        let home = home(variable);
        let token = match variable("HF_TOKEN").or_else(|| variable("HUGGING_FACE_HUB_TOKEN")) {
            Some(token) => Some(token),
            None => variable("HF_TOKEN_PATH")
                .map(|path| expand(&path, variable))
                .or_else(|| Some(home.as_ref()?.join("token")))
                .and_then(token_in),
        };
        let token = token.map(|token| token.trim().to_owned()).filter(|token| !token.is_empty());
        let cache = variable("HF_HUB_CACHE").or_else(|| variable("HUGGINGFACE_HUB_CACHE"));
        let cache = cache.map(|path| expand(&path, variable)).or_else(|| Some(home?.join("hub")));
        let offline = variable("HF_HUB_OFFLINE").is_some_and(|value| is_yes(&value));
        Ok(Self { endpoint, offline, cache, token })
    }

    /// Lets the network show the token to the Hub's origin, and to no other.
    pub fn introduce(&self, net: &Net) -> Result<(), SourceError> {
        match &self.token {
            Some(token) => net.lend_token(&self.endpoint, token).map_err(|error| {
                SourceError::new("the token for the Hub cannot be used")
                    .because(error)
                    .help("set HF_TOKEN to the token alone, without spaces and quotes")
            }),
            None => Ok(()),
        }
    }

    /// Whether there is a token.
    pub fn has_token(&self) -> bool {
        self.token.is_some()
    }

    /// An address below the endpoint; each segment is escaped as a whole, slashes in it too.
    pub fn url<'a>(&self, segments: impl IntoIterator<Item = &'a str>) -> Url {
        let mut url = self.endpoint.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url
    }
}

/// The Hub's own folder: `HF_HOME`, or below the user's cache.
fn home(variable: &dyn Fn(&str) -> Option<String>) -> Option<PathBuf> {
    if let Some(home) = variable("HF_HOME") {
        return Some(expand(&home, variable));
    }
    match variable("XDG_CACHE_HOME") {
        Some(cache) => Some(expand(&cache, variable).join("huggingface")),
        None => Some(PathBuf::from(variable("HOME")?).join(".cache/huggingface")),
    }
}

/// A path as the Hub's client takes it: `~` is the user's home.
fn expand(path: &str, variable: &dyn Fn(&str) -> Option<String>) -> PathBuf {
    match (path.strip_prefix('~'), variable("HOME")) {
        (Some(""), Some(home)) => home.into(),
        (Some(rest), Some(home)) if rest.starts_with('/') => PathBuf::from(home).join(rest.trim_start_matches('/')),
        _ => tool::absolute(path),
    }
}

fn is_yes(value: &str) -> bool {
    matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true")
}

/// What a token file says; one that cannot be read says nothing, as for the Hub's own client.
fn token_in(path: PathBuf) -> Option<String> {
    let mut text = String::new();
    open_regular(&path).ok()?.take(TOKEN_CAP).read_to_string(&mut text).ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn account(set: &[(&str, &str)]) -> Result<Account, SourceError> {
        Account::of(&|name| set.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned()))
    }

    #[test]
    fn the_environment_names_hub_token_and_cache() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        let nothing = account(&[("HOME", home)]).unwrap();
        assert_eq!(nothing.endpoint.as_str(), "https://huggingface.co/");
        assert_eq!((nothing.has_token(), nothing.offline), (false, false));
        assert_eq!(nothing.cache, Some(dir.path().join(".cache/huggingface/hub")));

        std::fs::write(dir.path().join("token"), " hf_of_file\n").unwrap();
        let of_file = account(&[("HOME", home), ("HF_HOME", home), ("HF_HUB_OFFLINE", "True")]).unwrap();
        assert_eq!((of_file.token.as_deref(), of_file.offline), (Some("hf_of_file"), true));
        assert_eq!(of_file.cache, Some(dir.path().join("hub")));
        let path = format!("{home}/token");
        let by_path = account(&[("HOME", "/nowhere"), ("HF_TOKEN_PATH", &path), ("HF_HUB_CACHE", "~/c")]).unwrap();
        assert_eq!((by_path.token.as_deref(), by_path.cache), (Some("hf_of_file"), Some("/nowhere/c".into())));
        let outright = account(&[("HF_HOME", home), ("HF_TOKEN", "hf_outright")]).unwrap();
        assert_eq!(outright.token.as_deref(), Some("hf_outright"));
    }

    #[test]
    fn addresses_are_escaped_below_the_endpoint() {
        let account = account(&[("HF_ENDPOINT", "http://mirror.example:8090/hub/?x=1")]).unwrap();
        let url = account.url(["api", "models", "a", "b", "revision", "refs/pr/1"]);
        assert_eq!(url.as_str(), "http://mirror.example:8090/hub/api/models/a/b/revision/refs%2Fpr%2F1");
        assert_eq!(account.url(["a b", "ü?#%"]).as_str(), "http://mirror.example:8090/hub/a%20b/%C3%BC%3F%23%25");
        for bad in ["ftp://host", "huggingface.co", "file:///srv"] {
            assert!(super::tests::account(&[("HF_ENDPOINT", bad)]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_that_cannot_be_sent_is_not_shown() {
        let account = account(&[("HF_TOKEN", "hf_sec ret")]).unwrap();
        let error = account.introduce(&Net::new(false)).unwrap_err();
        assert!(!format!("{error:?}").contains("ret\""), "{error:?}");
    }
}
