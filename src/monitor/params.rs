//! The parameters of `/connz`.
#![forbid(unsafe_code)]

use super::Want;
use super::query::Query;

/// Connections on a page if no limit is given.
pub(super) const DEFAULT_LIMIT: usize = 1024;

/// Parameters of `/connz`, decoded and related to each other.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConnzParams {
    pub(super) sort: SortBy,
    pub(super) state: State,
    pub(super) auth: bool,
    pub(super) subs: Subs,
    pub(super) offset: usize,
    pub(super) limit: usize,
    pub(super) cid: Option<u64>,
    pub(super) user: Option<String>,
    pub(super) account: Option<String>,
    pub(super) filter_subject: Option<String>,
    pub(super) mqtt_client: Option<String>,
}

/// Which connections are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    Open,
    Closed,
    Any,
}

/// How subscriptions are listed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Subs {
    None,
    Subjects,
    Detail,
}

/// The order of the list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SortBy {
    Cid,
    Subscriptions,
    Pending,
    MsgsTo,
    MsgsFrom,
    BytesTo,
    BytesFrom,
    Last,
    Idle,
    Uptime,
    Stop,
    Reason,
    Rtt,
}

const SORTS: &[(&str, SortBy)] = &[
    ("", SortBy::Cid),
    ("cid", SortBy::Cid),
    ("start", SortBy::Cid),
    ("subs", SortBy::Subscriptions),
    ("pending", SortBy::Pending),
    ("msgs_to", SortBy::MsgsTo),
    ("msgs_from", SortBy::MsgsFrom),
    ("bytes_to", SortBy::BytesTo),
    ("bytes_from", SortBy::BytesFrom),
    ("last", SortBy::Last),
    ("idle", SortBy::Idle),
    ("uptime", SortBy::Uptime),
    ("stop", SortBy::Stop),
    ("reason", SortBy::Reason),
    ("rtt", SortBy::Rtt),
];

impl ConnzParams {
    /// Decodes a query; the error is the text of the 400 answer, the reference's for the first parameter it rejects.
    pub(super) fn parse(query: &Query) -> Result<Self, String> {
        let auth = query.boolean("auth")?;
        let subs = subs(query)?;
        let offset = query.int("offset")?;
        let limit = query.int("limit")?;
        let cid = query.unsigned("cid")?;
        let state = state(query.get("state"))?;
        let sort = sort(query.get("sort"), state)?;
        let cid = (cid > 0).then_some(cid);
        let limit = match (cid, usize::try_from(limit)) {
            (Some(_), _) => 1,
            (None, Ok(limit)) if limit > 0 => limit,
            _ => DEFAULT_LIMIT,
        };
        let text = |name| Some(query.get(name).to_owned()).filter(|text| !text.is_empty());
        Ok(Self {
            sort,
            state,
            auth,
            subs,
            offset: usize::try_from(offset).unwrap_or(0),
            limit,
            cid,
            user: text("user"),
            account: text("acc"),
            filter_subject: text("filter_subject").filter(|subject| subject != ">"),
            mqtt_client: text("mqtt_client"),
        })
    }

    /// What the shards must deliver.
    pub(super) fn want(&self) -> Want {
        Want {
            open: self.state != State::Closed,
            closed: self.state != State::Open,
            subscriptions: self.subs != Subs::None || self.filter_subject.is_some(),
            cid: self.cid,
            ..Want::default()
        }
    }
}

fn subs(query: &Query) -> Result<Subs, String> {
    if query.get("subs").eq_ignore_ascii_case("detail") {
        return Ok(Subs::Detail);
    }
    Ok(if query.boolean("subs")? { Subs::Subjects } else { Subs::None })
}

fn state(text: &str) -> Result<State, String> {
    match text.to_ascii_lowercase().as_str() {
        "" | "open" => Ok(State::Open),
        "closed" => Ok(State::Closed),
        "any" | "all" => Ok(State::Any),
        _ => Err(format!("Error decoding state for {text}")),
    }
}

fn sort(text: &str, state: State) -> Result<SortBy, String> {
    let sort = SORTS.iter().find(|(name, _)| *name == text).map(|(_, sort)| *sort);
    match sort.ok_or_else(|| format!("invalid sorting option: {text}"))? {
        SortBy::Stop | SortBy::Reason if state != State::Closed => {
            Err(format!("sort by {text} only valid on closed connections"))
        }
        sort => Ok(sort),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(query: &str) -> Result<ConnzParams, String> {
        ConnzParams::parse(&Query::parse(query))
    }

    /// What is not understood is refused with the reference's words, in its order.
    #[test]
    fn refusals() {
        let cases = [
            ("sort=zz", "invalid sorting option: zz"),
            ("sort=CID", "invalid sorting option: CID"),
            ("sort=stop", "sort by stop only valid on closed connections"),
            ("sort=reason&state=any", "sort by reason only valid on closed connections"),
            ("state=zz", "Error decoding state for zz"),
            ("state=1&sort=zz", "Error decoding state for 1"),
            ("subs=zz", "Error decoding boolean for 'subs': strconv.ParseBool: parsing \"zz\": invalid syntax"),
            (
                "auth=yEs&subs=zz",
                "Error decoding boolean for 'auth': strconv.ParseBool: parsing \"yEs\": invalid syntax",
            ),
            ("offset=zz", "Error decoding int for 'offset': strconv.Atoi: parsing \"zz\": invalid syntax"),
            ("limit=1_000", "Error decoding int for 'limit': strconv.Atoi: parsing \"1_000\": invalid syntax"),
            ("cid=zz", "Error decoding uint64 for 'cid': strconv.ParseUint: parsing \"zz\": invalid syntax"),
        ];
        for (query, error) in cases {
            assert_eq!(parse(query).unwrap_err(), error, "{query}");
        }
    }

    #[test]
    fn defaults_and_values() {
        let default = parse("").unwrap();
        assert_eq!((default.offset, default.limit, default.cid), (0, 1024, None));
        assert_eq!(default.want(), Want { open: true, ..Want::default() });
        assert_eq!(parse("sort=&state=&subs=&limit=0&offset=-1&cid=0&foo=bar").unwrap(), default);
        assert_eq!(parse("limit=-1").unwrap(), default);
        let all = parse("state=ALL&subs=DETAIL&cid=7&limit=3&user=u&acc=A&filter_subject=a.*").unwrap();
        assert_eq!((all.limit, all.cid, all.subs), (1, Some(7), Subs::Detail));
        assert_eq!(all.want(), Want { open: true, closed: true, subscriptions: true, cid: Some(7), ..Want::default() });
        assert_eq!(all.filter_subject.as_deref(), Some("a.*"));
        assert!(parse("state=closed&sort=stop").is_ok());
        assert_eq!(parse("filter_subject=>").unwrap(), default);
    }
}
