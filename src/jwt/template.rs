//! Permissions of a signing key's users: subjects in which something of the user or the account is put.
#![forbid(unsafe_code)]

use crate::subject;

/// Subjects that one template may become: every tag of a user makes one, for each time tags are asked for.
const SUBJECTS_MAX: usize = 1024;

/// What templates take from.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    /// Name of the user.
    pub name: &'a str,
    /// Public key of the user.
    pub subject: &'a str,
    /// Tags of the user.
    pub tags: &'a [String],
    /// Name of the account.
    pub account_name: &'a str,
    /// Public key of the account.
    pub account_subject: &'a str,
    /// Tags of the account.
    pub account_tags: &'a [String],
}

/// The subjects that the templates among `list` become; others stay. A template for which there is no value, or whose
/// value makes no subject, becomes none.
///
/// # Errors
/// When a function is not known or makes too many subjects; and, if `strict`, when a template becomes no subject.
pub fn expand(list: &[String], values: &Values<'_>, strict: bool) -> Result<Vec<String>, &'static str> {
    let mut subjects = Vec::new();
    for template in list {
        if !template.contains("{{") {
            subjects.push(template.clone());
            continue;
        }
        let made = substitute(template, values)?;
        let (good, bad): (Vec<_>, Vec<_>) = made.into_iter().partition(|text| is_subject(text));
        if strict && (good.is_empty() || !bad.is_empty()) {
            return Err("a denied subject of the signing key's template cannot be made");
        }
        subjects.extend(good);
    }
    Ok(subjects)
}

/// A subject alone: blanks of a value would make a queue group of its end.
fn is_subject(text: &str) -> bool {
    subject::is_valid_subscription(text.as_bytes()) && !text.bytes().any(|byte| byte.is_ascii_whitespace())
}

fn substitute(template: &str, values: &Values<'_>) -> Result<Vec<String>, &'static str> {
    let mut made = vec![String::new()];
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (call, after) = after.split_once("}}").ok_or("a template of the signing key has no end")?;
        let found = function(call, values)?;
        if made.len().saturating_mul(found.len()) > SUBJECTS_MAX {
            return Err("a template of the signing key becomes too many subjects");
        }
        made = made.iter().flat_map(|begun| found.iter().map(move |value| format!("{begun}{before}{value}"))).collect();
        rest = after;
    }
    made.iter_mut().for_each(|text| text.push_str(rest));
    Ok(made)
}

fn function<'a>(call: &str, values: &Values<'a>) -> Result<Vec<&'a str>, &'static str> {
    let call = call.trim().to_ascii_lowercase();
    let tagged = |tags: &'a [String], function: &str| -> Option<Vec<&'a str>> {
        let prefix = format!("{}:", call.strip_prefix(function)?.strip_suffix(')')?.trim());
        Some(tags.iter().filter_map(|tag| tag.strip_prefix(&prefix)).collect())
    };
    match call.as_str() {
        "name()" => Ok(vec![values.name]),
        "subject()" => Ok(vec![values.subject]),
        "account-name()" => Ok(vec![values.account_name]),
        "account-subject()" => Ok(vec![values.account_subject]),
        _ => tagged(values.tags, "tag(")
            .or_else(|| tagged(values.account_tags, "account-tag("))
            .ok_or("a template of the signing key has an unknown function"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(list: &[&str]) -> Vec<String> {
        list.iter().map(ToString::to_string).collect()
    }

    /// What nats-server makes of the same templates.
    #[test]
    fn templates() {
        let (tags, account_tags) = (texts(&["x:1", "x:2", "y:bad token"]), texts(&["z:zz"]));
        let values = Values {
            name: "usr",
            subject: "UA",
            tags: &tags,
            account_name: "acc",
            account_subject: "AA",
            account_tags: &account_tags,
        };
        for (template, expected) in [
            ("plain.>", &["plain.>"][..]),
            ("p.{{name()}}", &["p.usr"]),
            ("in{{Name()}}x", &["inusrx"]),
            ("{{subject()}}.{{account-name()}}.{{account-subject()}}", &["UA.acc.AA"]),
            ("{{name()}}.{{tag(x)}}", &["usr.1", "usr.2"]),
            ("{{tag(x)}}.{{tag(X)}}", &["1.1", "1.2", "2.1", "2.2"]),
            ("{{account-tag(z)}}", &["zz"]),
            ("a.{{name()}} q", &[]),
            ("{{tag(none)}}", &[]),
            ("{{tag(y)}}.b", &[]),
        ] {
            assert_eq!(expand(&texts(&[template]), &values, false), Ok(texts(expected)), "{template}");
            assert_eq!(expand(&texts(&[template]), &values, true).is_err(), expected.is_empty(), "{template}");
        }
        for wrong in ["{{foo()}}", "{{name()", "{{}}", "{{tag(x}}"] {
            assert!(expand(&texts(&[wrong]), &values, false).is_err(), "{wrong}");
        }
        let many: Vec<String> = (0..100).map(|n| format!("x:{n}")).collect();
        let values = Values { tags: &many, ..values };
        assert!(expand(&texts(&["{{tag(x)}}.{{tag(x)}}"]), &values, false).is_err());
        let nameless = Values { name: "", ..values };
        assert_eq!(expand(&texts(&["p.{{name()}}"]), &nameless, false), Ok(Vec::new()));
    }
}
