//! Where an etcd is, as a user writes it: `http://[USER:PASSWORD@]HOST:PORT[,HOST:PORT]/PREFIX`, or `https`,
//! then with `?ca=FILE` for a certificate authority of one's own and `&cert=FILE&key=FILE` for a certificate to
//! show. Pure: it opens no file.

use std::path::PathBuf;

/// The longest prefix, in bytes: it is in each key of a transaction, whose size is limited.
const LONGEST: usize = 256;

/// What stands between the prefix and the keys. No prefix has it, so that no store is inside another.
const SEPARATOR: char = ':';

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Address {
    /// The members, each with its scheme.
    pub(super) endpoints: Vec<String>,
    /// Name and password.
    pub(super) user: Option<(String, String)>,
    /// What every key begins with.
    pub(super) prefix: String,
    pub(super) files: Files,
}

/// PEM files for TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Files {
    pub(super) ca: Option<PathBuf>,
    pub(super) cert: Option<PathBuf>,
    pub(super) key: Option<PathBuf>,
}

impl Address {
    pub(super) fn is_secure(&self) -> bool {
        self.endpoints.iter().any(|one| one.starts_with("https:"))
    }
}

/// Reads what stands after `etcd:`. The error says what is wrong.
pub(super) fn parse(text: &str) -> Result<Address, String> {
    let (scheme, rest) = text
        .split_once("://")
        .filter(|(scheme, _)| matches!(*scheme, "http" | "https"))
        .ok_or("it begins with neither http:// nor https://")?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    // A password may have slashes of its own; nothing behind it has an @.
    let (user, rest) = match rest.rsplit_once('@') {
        Some((user, rest)) => (Some(parse_user(user)?), rest),
        None => (None, rest),
    };
    let (hosts, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    let endpoints = hosts.split(',').map(|host| {
        let valid = !host.is_empty() && !host.contains(char::is_whitespace);
        let endpoint = valid.then(|| format!("{scheme}://{host}"));
        endpoint.ok_or_else(|| format!("{host:?} is no HOST:PORT"))
    });
    let address = Address {
        endpoints: endpoints.collect::<Result<_, _>>()?,
        user,
        prefix: parse_prefix(prefix)?,
        files: parse_files(query)?,
    };
    if address.files != Files::default() && !address.is_secure() {
        return Err("ca, cert and key are for https:// alone".to_owned());
    }
    Ok(address)
}

fn parse_user(text: &str) -> Result<(String, String), String> {
    let (name, password) = text
        .split_once(':')
        .ok_or("a user needs a password: USER:PASSWORD@")?;
    Ok((name.to_owned(), password.to_owned()))
}

fn parse_prefix(text: &str) -> Result<String, String> {
    let trimmed = text.trim_matches('/');
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    let valid = !trimmed.is_empty()
        && trimmed.len() <= LONGEST
        && trimmed.bytes().all(known)
        && !trimmed.contains("//");
    if !valid {
        return Err(format!(
            "/{text} is no prefix: after the addresses comes one of at most {LONGEST} letters, digits, dashes, dots and underscores, with slashes between them, such as /muster/workers"
        ));
    }
    Ok(format!("/{trimmed}{SEPARATOR}"))
}

fn parse_files(query: &str) -> Result<Files, String> {
    let mut files = Files::default();
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, path) = pair.split_once('=').unwrap_or((pair, ""));
        let file = match name {
            "ca" => &mut files.ca,
            "cert" => &mut files.cert,
            "key" => &mut files.key,
            _ if query.contains('@') => return Err("a password cannot have a ?".to_owned()),
            _ => return Err(format!("{name:?} is none of ca, cert and key")),
        };
        if path.is_empty() || file.replace(PathBuf::from(path)).is_some() {
            return Err(format!("{name} needs one file: {name}=FILE"));
        }
    }
    if files.cert.is_some() != files.key.is_some() {
        return Err("cert and key go together".to_owned());
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_are_read() {
        let address = parse("http://a:2379,b:2379/muster/workers/").unwrap();
        assert_eq!(address.endpoints, ["http://a:2379", "http://b:2379"]);
        assert_eq!((address.user, &*address.prefix), (None, "/muster/workers:"));
        let secure = parse("https://me:p@ss:word@[::1]:2379/x?ca=/ca.pem&cert=c&key=k").unwrap();
        assert_eq!(secure.endpoints, ["https://[::1]:2379"]);
        assert_eq!(secure.user, Some(("me".to_owned(), "p@ss:word".to_owned())));
        let slashes = parse("http://me:p/ss/word@a:2379,b:2379/x").unwrap();
        assert_eq!(slashes.endpoints, ["http://a:2379", "http://b:2379"]);
        assert_eq!(
            slashes.user,
            Some(("me".to_owned(), "p/ss/word".to_owned()))
        );
        assert_eq!(slashes.prefix, "/x:");
        let files = Files {
            ca: Some("/ca.pem".into()),
            cert: Some("c".into()),
            key: Some("k".into()),
        };
        assert_eq!(secure.files, files);
    }

    #[test]
    fn no_store_is_inside_another() {
        let prefixes = ["a", "a/b", "ab", "a.b"].map(|text| parse_prefix(text).unwrap());
        for one in &prefixes {
            for other in prefixes.iter().filter(|other| *other != one) {
                assert!(!one.starts_with(other.as_str()), "{one} {other}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_a_password() {
        for text in [
            "http://me:hush@a:1",
            "http://me:hush/hush@a:1/a//b",
            "http://me:hu/sh@a b/p",
            "https://me:1?hush@a:1/p",
            "http://me:1/p?hush@a:1/p",
            "http://hush@a:1/p",
        ] {
            let error = parse(text).unwrap_err();
            assert!(!error.contains("hush"), "{text}: {error}");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let long = format!("http://a:1/{}", "x".repeat(LONGEST + 1));
        let cases = [
            ("ftp://a/p", "neither"),
            ("a:1/p", "neither"),
            ("http:///p", "no HOST:PORT"),
            ("http://a:1,,b:1/p", "no HOST:PORT"),
            ("http://a b/p", "no HOST:PORT"),
            ("http://a:1", "/muster/workers"),
            ("http://a:1/", "/muster/workers"),
            ("http://a:1/a//b", "/muster/workers"),
            ("http://a:1/a:b", "/muster/workers"),
            (&long, "/muster/workers"),
            ("http://me@a:1/p", "password"),
            ("http://a:1/p?ca=x", "https:// alone"),
            ("https://a:1/p?what=x", "none of"),
            ("https://a:1/p?ca=", "needs one file"),
            ("https://a:1/p?ca=x&ca=y", "needs one file"),
            ("https://a:1/p?cert=x", "go together"),
        ];
        for (text, words) in cases {
            let error = parse(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
