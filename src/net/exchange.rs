//! Exchange: one question and its answer, redirects followed.
//!
//! Layer 3 (effects): opens the sockets. Redirects are followed here and not by the library, so that each hop
//! is looked at: a credential goes to the origin it was given for and to no other, https never becomes http.
//! Must never put a whole URL into an error, nor an error of the library that carries one.

use std::error::Error;
use std::io;

use reqwest::blocking::{Client, Response};
use reqwest::header::{ACCEPT, ACCEPT_ENCODING, HeaderMap, HeaderName, IF_RANGE, LOCATION, RANGE, RETRY_AFTER};
use reqwest::redirect::Policy;
use url::Url;

use super::address::{bare, next_hop, origin, shown};
use super::patience::{Again, Failure, is_passing, retry_after};
use super::{Net, NetError};
use crate::text::with_causes;

/// More than this many redirects are a mistake of somebody's.
const HOPS: usize = 10;

/// What a server is told to prove who asks; never shown, hence no `Debug`.
#[derive(Clone)]
pub(super) enum Credential {
    Token(String),
    /// As they stand in a URL, percent-encoded.
    Login {
        user: String,
        password: Option<String>,
    },
}

impl Credential {
    /// The user name and password of a URL that has them.
    fn of(url: &Url) -> Option<Self> {
        let password = url.password().map(str::to_owned);
        (!url.username().is_empty() || password.is_some()).then(|| Self::Login { user: url.username().to_owned(), password })
    }
}

/// What is asked beside the URL.
#[derive(Default)]
pub(super) struct Question<'a> {
    pub accept: Option<&'a str>,
    /// First byte wanted, where that is not the first of all.
    pub from: u64,
    /// The byte behind the last one wanted, where not all to the end are.
    pub until: Option<u64>,
    /// What must not have changed for `from` to make sense.
    pub validator: Option<&'a str>,
}

/// A server's answer that is not a redirect, with the URL that gave it.
pub(super) struct Answer {
    pub status: u16,
    pub url: Url,
    pub response: Response,
}

impl Answer {
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        text(self.response.headers(), name)
    }

    /// What the server calls its refusal.
    fn code(&self) -> Option<String> {
        let code = text(self.response.headers(), HeaderName::from_static("x-error-code"))?.trim();
        (code.len() <= 40 && code.bytes().all(|byte| byte.is_ascii_alphanumeric())).then(|| code.to_owned())
    }

    /// The failure that this status stands for.
    pub fn failure(&self) -> Failure {
        let error = NetError::Status { url: shown(&self.url), status: self.status, code: self.code() };
        let again = if is_passing(self.status) { retry_after(self.header(RETRY_AFTER)) } else { Again::Never };
        Failure { error, again }
    }
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

impl Net {
    /// Asks once.
    pub(super) fn ask(&self, url: &Url, question: &Question) -> Result<Answer, Failure> {
        let login = Credential::of(url);
        let own = origin(url);
        if let Some(login) = &login {
            self.remember(&own, login);
        }
        let mut hops = vec![bare(url)];
        loop {
            let here = hops.last().expect("begins with one and only grows").clone();
            let credential = match &login {
                Some(login) if origin(&here) == own => Some(login.clone()),
                _ => self.credential(&origin(&here)),
            };
            let response = self.send(&here, question, credential)?;
            let status = response.status().as_u16();
            if !matches!(status, 301 | 302 | 303 | 307 | 308) {
                return Ok(Answer { status, url: here, response });
            }
            let refuse = |why: &str| NetError::Redirect { url: shown(url), why: why.to_owned() };
            let location = response.headers().get(LOCATION).ok_or_else(|| refuse("without saying where to"))?;
            let next = next_hop(&here, location.as_bytes())?;
            if hops.contains(&next) {
                return Err(refuse(&format!("in a circle, through {}", shown(&next))).into());
            }
            if hops.len() > HOPS {
                return Err(refuse(&format!("more than {HOPS} times")).into());
            }
            hops.push(next);
        }
    }

    fn send(&self, url: &Url, question: &Question, credential: Option<Credential>) -> Result<Response, Failure> {
        let mut target = url.clone();
        if let Some(Credential::Login { user, password }) = &credential {
            // Cannot fail for a URL that has a host; the library moves both into the header.
            let _ = target.set_username(user);
            let _ = target.set_password(password.as_deref());
        }
        let mut request = self.client(url)?.get(target).header(ACCEPT_ENCODING, "identity");
        if let Some(Credential::Token(token)) = &credential {
            request = request.bearer_auth(token);
        }
        if let Some(accept) = question.accept {
            request = request.header(ACCEPT, accept);
        }
        if question.from > 0 || question.until.is_some() {
            let last = question.until.map_or_else(String::new, |until| until.saturating_sub(1).to_string());
            request = request.header(RANGE, format!("bytes={}-{last}", question.from));
            if let Some(validator) = question.validator {
                request = request.header(IF_RANGE, validator);
            }
        }
        request.send().map_err(|error| {
            let error = error.without_url();
            if let Some(source) = certificate_trouble(&error) {
                return NetError::Certificate { url: shown(url), source }.into();
            }
            let again = if error.is_builder() { Again::Never } else { Again::Soon };
            Failure { error: NetError::Unreachable { url: shown(url), source: Box::new(error) }, again }
        })
    }

    /// The client, made when it is first needed: reading the host's certificates takes a while.
    fn client(&self, url: &Url) -> Result<&Client, NetError> {
        let made = self.client.get_or_init(|| {
            // Fails where one is installed already, which is as good.
            let _ = rustls::crypto::ring::default_provider().install_default();
            let mut builder = Client::builder()
                .user_agent(concat!("pack/", env!("CARGO_PKG_VERSION")))
                .redirect(Policy::none())
                .connect_timeout(self.patience.connect)
                // The blocking client counts this anew for the headers and for each read of the body.
                .timeout(self.patience.idle);
            if !self.proxies {
                builder = builder.no_proxy();
            }
            builder.build().map_err(|error| with_causes(&error.without_url()))
        });
        made.as_ref().map_err(|why| NetError::Client { url: shown(url), why: why.clone() })
    }
}

/// A certificate that is refused now is refused the next time too.
fn certificate_trouble(error: &(dyn Error + 'static)) -> Option<rustls::Error> {
    if let Some(found @ rustls::Error::InvalidCertificate(_)) = error.downcast_ref() {
        return Some(found.clone());
    }
    // What an I/O error holds is not its source: that would be one further down.
    match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(inner) => certificate_trouble(inner),
        None => error.source().and_then(certificate_trouble),
    }
}
