//! Connection strings of MongoDB: which servers one names, and what of it may be shown.

/// Scheme and servers of a connection string, in one order (the Connection String Spec of MongoDB:
/// `scheme://[user[:password]@]host[:port][,…][/[database][?options]]`).
pub(super) fn hosts(uri: &str) -> (&str, Vec<String>) {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("", uri));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let servers = authority.rsplit('@').next().unwrap_or_default();
    let with_port = |server: &str| {
        let server = server.to_ascii_lowercase();
        let named = server.rsplit_once(':').is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        if named { server } else { format!("{server}:27017") }
    };
    let mut servers: Vec<_> = servers.split(',').map(with_port).collect();
    servers.sort_unstable();
    (scheme, servers)
}

/// A connection string without what may be secret. A sign of a login where there should be none, after a slash that isn't
/// escaped for instance, hides all of it.
pub(super) fn servers_only(uri: &str) -> String {
    let (scheme, rest) = uri.split_once("://").unwrap_or(("mongodb", uri));
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if rest[authority.len()..].contains('@') {
        return format!("{scheme}://(secret)");
    }
    format!("{scheme}://{}", authority.rsplit('@').next().unwrap_or_default())
}

/// Whether a connection string holds a secret: before the servers, or as an option (`tlsCertificateKeyFilePassword`,
/// `authMechanismProperties` with a session token).
pub(super) fn has_password(uri: &str) -> bool {
    let options = uri.split_once('?').map(|(_, options)| options.to_ascii_lowercase()).unwrap_or_default();
    redact(uri) != uri || options.contains("password") || options.contains("token")
}

/// Text without the user and password of any URI in it.
pub fn redact(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, after) = rest.split_at(at + 3);
        shown.push_str(before);
        // Up to the end of what may be an authority; a password that isn't escaped may hold a slash.
        let end = after.find(|c: char| c.is_whitespace() || matches!(c, '"' | '`' | '\'')).unwrap_or(after.len());
        rest = after[..end].rfind('@').map_or(after, |sign| {
            shown.push_str("(secret)");
            &after[sign..]
        });
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn no_login_is_shown() {
        for (text, shown) in [
            ("no URI", "no URI"),
            ("mongodb://h/d is away", "mongodb://h/d is away"),
            ("at `mongodb://u:p@h,i/d`: x@y", "at `mongodb://(secret)@h,i/d`: x@y"),
            ("mongodb://u:p/a@h mongodb+srv://u@h", "mongodb://(secret)@h mongodb+srv://(secret)@h"),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
