//! What a parser says of a configuration, in the words of who writes one.

/// The most letters that two words for the same differ in, of a word's.
const LIKENESS: f64 = 0.7;

/// Lists and objects by their names in JSON, and of the many keys that there are the one that is likely meant.
pub(super) fn in_json_words(message: &str) -> String {
    if let Some(meant) = meant(message) {
        return meant;
    }
    let mut message = message.to_owned();
    // Only where the parser says so: what it quotes is the operator's.
    for (begin, word) in
        [("invalid type: sequence, ", "invalid type: list, "), ("invalid type: map, ", "invalid type: object, ")]
    {
        if let Some(rest) = message.strip_prefix(begin) {
            message = format!("{word}{rest}");
        }
    }
    match message.strip_suffix("expected a sequence") {
        Some(begin) => format!("{begin}expected a list"),
        None => message,
    }
}

/// What a word that is unknown stands for, if one that is known is like it. The others are left out.
fn meant(message: &str) -> Option<String> {
    let (found, others) = message.split_once(", expected ")?;
    let unknown =
        found.strip_prefix("unknown field `").or(found.strip_prefix("unknown variant `"))?.strip_suffix('`')?;
    let known = others.split('`').skip(1).step_by(2);
    let (likeness, likely) = known
        .map(|word| (strsim::normalized_damerau_levenshtein(unknown, word), word))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))?;
    (likeness >= LIKENESS).then(|| format!("{found}; did you mean `{likely}`?"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_like_one_that_there_is_is_asked_about_and_others_are_listed() {
        for (message, said) in [
            ("unknown field `lisen`, expected one of `app`, `listen`", "unknown field `lisen`; did you mean `listen`?"),
            ("unknown field `confg`, expected `config` or `library`", "unknown field `confg`; did you mean `config`?"),
            ("unknown field `x`, expected `config` or `library`", "unknown field `x`, expected `config` or `library`"),
            (
                "unknown variant `rolback`, expected `lock` or `rollback`",
                "unknown variant `rolback`; did you mean `rollback`?",
            ),
            ("unknown field `a`, there are no fields", "unknown field `a`, there are no fields"),
            ("invalid type: string \"x\", expected a sequence", "invalid type: string \"x\", expected a list"),
            ("invalid type: sequence, expected an object", "invalid type: list, expected an object"),
            ("invalid type: map, expected a sequence", "invalid type: object, expected a list"),
        ] {
            assert_eq!(in_json_words(message), said);
        }
    }
}
