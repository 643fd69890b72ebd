//! The query string: `select`, filters, `order`, `limit`, `offset`, `columns`, `on_conflict`.
//!
//! Only the grammar; whether names exist and values fit is the business of `resolve`.

use percent_encoding::percent_decode_str;

use super::error::RestError;
use super::scan::Scanner;

/// Items in a select list, terms in an order, names in `columns` and `on_conflict` at most.
const MOST_NAMES: usize = 200;
/// Conditions at most.
const MOST_FILTERS: usize = 100;
/// `and`/`or` inside each other at most.
const MOST_DEPTH: usize = 20;
/// Values in all `in` lists at most.
const MOST_VALUES: usize = 10_000;

/// A column or a place in a JSON column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Field {
    pub(super) column: String,
    pub(super) path: Vec<Step>,
    /// The last arrow was `->>`.
    pub(super) as_text: bool,
}

/// One arrow of a JSON path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Key(String),
    Index(i64),
}

/// An item of the select list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Item {
    /// `*`
    All,
    /// `alias:field::text`
    One { field: Field, alias: Option<String>, text: bool },
}

/// A comparison that takes one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compare {
    Eq,
    Neq,
    Gt,
    Gte,
    Lt,
    Lte,
    Like,
    Ilike,
}

/// What `is` asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Is {
    Null,
    NotNull,
    True,
    False,
    Unknown,
}

/// A condition on rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Filter {
    Not(Box<Filter>),
    All(Vec<Filter>),
    Any(Vec<Filter>),
    Compare(Field, Compare, String),
    In(Field, Vec<String>),
    Is(Field, Is),
}

/// A term of the order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Term {
    pub(super) field: Field,
    pub(super) descending: bool,
    pub(super) nulls_first: bool,
}

/// The whole query string.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Query {
    /// `None`: all columns.
    pub(super) select: Option<Vec<Item>>,
    /// All must hold.
    pub(super) filters: Vec<Filter>,
    pub(super) order: Vec<Term>,
    pub(super) limit: Option<u64>,
    pub(super) offset: u64,
    pub(super) columns: Option<Vec<String>>,
    pub(super) on_conflict: Option<Vec<String>>,
}

/// What the bounds have left.
struct Budget {
    filters: usize,
    values: usize,
}

impl Query {
    /// Parses a raw query string.
    pub(super) fn parse(raw: &str) -> Result<Self, RestError> {
        let mut query = Self::default();
        let mut budget = Budget { filters: MOST_FILTERS, values: MOST_VALUES };
        let mut seen: Vec<String> = Vec::new();
        for pair in raw.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode(name)?, decode(value)?);
            let once = matches!(
                &*name,
                "select" | "order" | "limit" | "offset" | "columns" | "on_conflict"
            );
            if once {
                if seen.contains(&name) {
                    return Err(RestError::syntax("the query string", raw)
                        .details(format!("\"{name}\" is given twice")));
                }
                seen.push(name.clone());
            }
            match &*name {
                "select" => query.select = Some(select(&value)?),
                "order" => query.order = order(&value)?,
                "limit" => query.limit = Some(count("limit", &value)?),
                "offset" => query.offset = count("offset", &value)?,
                "columns" => query.columns = Some(names("columns parameter", &value)?),
                "on_conflict" => query.on_conflict = Some(names("on_conflict parameter", &value)?),
                "and" | "or" | "not.and" | "not.or" => {
                    let mut scanner = Scanner::new("logic tree", &value);
                    query.filters.push(group(&name, &mut scanner, 1, &mut budget)?);
                    scanner.end()?;
                }
                _ => query.filters.push(filter(&name, &value, &mut budget)?),
            }
        }
        Ok(query)
    }

    /// The parameters of a function call have no place here.
    pub(super) fn shapes_nothing(&self) -> bool {
        *self == Self::default()
    }
}

/// Form encoding: `+` is a blank.
fn decode(text: &str) -> Result<String, RestError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    let decoded = decoded.map_err(|_| RestError::syntax("a parameter that is not UTF-8", text))?;
    if decoded.contains('\0') {
        return Err(RestError::new("22021", "invalid byte sequence for encoding \"UTF8\": 0x00"));
    }
    Ok(decoded.into_owned())
}

fn count(name: &'static str, text: &str) -> Result<u64, RestError> {
    text.parse().ok().filter(|count| i64::try_from(*count).is_ok()).ok_or_else(|| {
        if text.starts_with('-') && text.parse::<i64>().is_ok() {
            return RestError::new("PGRST103", "Requested range not satisfiable")
                .details(format!("{name} should be greater than or equal to zero."));
        }
        RestError::syntax(name, text)
    })
}

/// `a,"b c"`
fn names(what: &'static str, text: &str) -> Result<Vec<String>, RestError> {
    let mut scanner = Scanner::new(what, text);
    separated(&mut scanner, |scanner| {
        let field = scanner.field(&[','])?;
        if field.path.is_empty() { Ok(field.column) } else { Err(scanner.error()) }
    })
}

fn separated<T>(
    scanner: &mut Scanner<'_>,
    mut item: impl FnMut(&mut Scanner<'_>) -> Result<T, RestError>,
) -> Result<Vec<T>, RestError> {
    let mut items = Vec::new();
    loop {
        if items.len() == MOST_NAMES {
            return Err(RestError::too_complex("names in a list", MOST_NAMES));
        }
        items.push(item(scanner)?);
        if !scanner.take(",") {
            scanner.end()?;
            return Ok(items);
        }
    }
}

fn select(text: &str) -> Result<Vec<Item>, RestError> {
    let mut scanner = Scanner::new("select parameter", text);
    separated(&mut scanner, select_item)
}

fn select_item(scanner: &mut Scanner<'_>) -> Result<Item, RestError> {
    const STOPS: [char; 5] = [',', ':', '(', ')', '.'];
    while scanner.take(" ") {}
    if scanner.take("*") {
        while scanner.take(" ") {}
        return if scanner.until(&[',']).is_empty() { Ok(Item::All) } else { Err(scanner.error()) };
    }
    let mut field = scanner.field(&STOPS)?;
    let mut alias = None;
    if !scanner.rest().starts_with("::") && scanner.take(":") {
        if !field.path.is_empty() {
            return Err(scanner.error());
        }
        alias = Some(field.column);
        field = scanner.field(&STOPS)?;
    }
    if scanner.rest().starts_with("()") {
        return Err(no_aggregates());
    }
    if scanner.rest().starts_with('(') {
        return Err(RestError::new(
            "PGRST200",
            "Could not find a relationship between the tables in the schema cache",
        )
        .details(format!("\"{}\" is not related to the table", field.column))
        .hint("embedding is not supported here: ask for each table by itself"));
    }
    if ["sum()", "avg()", "min()", "max()", "count()"]
        .iter()
        .any(|name| scanner.rest().strip_prefix('.').is_some_and(|rest| rest.starts_with(name)))
    {
        return Err(no_aggregates());
    }
    let mut text = false;
    if scanner.take("::") {
        match scanner.until(&[',']).trim() {
            "text" => text = true,
            other => {
                return Err(
                    RestError::syntax("select parameter", other).details("the only cast is ::text")
                );
            }
        }
    }
    Ok(Item::One { field, alias, text })
}

fn no_aggregates() -> RestError {
    RestError::new("PGRST123", "Use of aggregate functions is not allowed")
}

fn order(text: &str) -> Result<Vec<Term>, RestError> {
    let mut scanner = Scanner::new("order", text);
    separated(&mut scanner, |scanner| {
        let field = scanner.field(&['.', ','])?;
        let (mut descending, mut nulls_first) = (None, None);
        while scanner.take(".") {
            match scanner.until(&['.', ',']) {
                "asc" if descending.is_none() && nulls_first.is_none() => descending = Some(false),
                "desc" if descending.is_none() && nulls_first.is_none() => descending = Some(true),
                "nullsfirst" if nulls_first.is_none() => nulls_first = Some(true),
                "nullslast" if nulls_first.is_none() => nulls_first = Some(false),
                _ => return Err(scanner.error()),
            }
        }
        let descending = descending.unwrap_or(false);
        Ok(Term { field, descending, nulls_first: nulls_first.unwrap_or(descending) })
    })
}

/// `column=not.op.value`: here the value is raw to the end.
fn filter(name: &str, value: &str, budget: &mut Budget) -> Result<Filter, RestError> {
    let mut in_name = Scanner::new("filter", name);
    let field = in_name.field(&['.'])?;
    if in_name.rest().starts_with('.') {
        return Err(RestError::new(
            "PGRST108",
            format!("'{}' is not an embedded resource in this request", field.column),
        )
        .hint("embedding is not supported here"));
    }
    in_name.end()?;
    let mut scanner = Scanner::new("filter", value);
    let filter = operation(field, &mut scanner, budget, Place::Parameter)?;
    scanner.end()?;
    Ok(filter)
}

/// `(a.eq.1,not.and(b.gt.2,c.is.null))`, its name already read.
fn group(
    name: &str,
    scanner: &mut Scanner<'_>,
    depth: usize,
    budget: &mut Budget,
) -> Result<Filter, RestError> {
    if depth > MOST_DEPTH {
        return Err(RestError::too_complex("levels of and/or", MOST_DEPTH));
    }
    scanner.expect("(")?;
    let mut members = Vec::new();
    loop {
        members.push(member(scanner, depth, budget)?);
        if scanner.take(")") {
            break;
        }
        scanner.expect(",")?;
    }
    Ok(match name {
        "and" => Filter::All(members),
        "not.and" => Filter::Not(Box::new(Filter::All(members))),
        "not.or" => Filter::Not(Box::new(Filter::Any(members))),
        _ => Filter::Any(members),
    })
}

fn member(
    scanner: &mut Scanner<'_>,
    depth: usize,
    budget: &mut Budget,
) -> Result<Filter, RestError> {
    while scanner.take(" ") {}
    for name in ["and", "or", "not.and", "not.or"] {
        let mut ahead = *scanner;
        if ahead.take(name) && ahead.rest().starts_with('(') {
            *scanner = ahead;
            return group(name, scanner, depth + 1, budget);
        }
    }
    let field = scanner.field(&['.', '(', ')', ','])?;
    scanner.expect(".")?;
    operation(field, scanner, budget, Place::Brackets)
}

/// Where an operation stands decides where its value ends.
#[derive(Debug, Clone, Copy)]
enum Place {
    /// Raw to the end of the parameter.
    Parameter,
    /// Quoted, or raw up to `,` or `)`.
    Brackets,
}

fn operation(
    field: Field,
    scanner: &mut Scanner<'_>,
    budget: &mut Budget,
    place: Place,
) -> Result<Filter, RestError> {
    let value = |scanner: &mut Scanner<'_>| match place {
        Place::Parameter => scanner.until(&[]).to_owned(),
        Place::Brackets => scanner.list_value(),
    };
    budget.filters = budget
        .filters
        .checked_sub(1)
        .ok_or_else(|| RestError::too_complex("filters", MOST_FILTERS))?;
    let negated = scanner.take("not.");
    let before = *scanner;
    let operator = scanner.until(&['.', '(', ')', ',']);
    let compare = match operator {
        "eq" => Some(Compare::Eq),
        "neq" => Some(Compare::Neq),
        "gt" => Some(Compare::Gt),
        "gte" => Some(Compare::Gte),
        "lt" => Some(Compare::Lt),
        "lte" => Some(Compare::Lte),
        "like" => Some(Compare::Like),
        "ilike" => Some(Compare::Ilike),
        _ => None,
    };
    let filter = if let Some(compare) = compare {
        scanner.expect(".")?;
        Filter::Compare(field, compare, value(scanner))
    } else if operator == "in" {
        scanner.expect(".")?;
        Filter::In(field, list(scanner, budget)?)
    } else if operator == "is" {
        scanner.expect(".")?;
        let wanted = match &*value(scanner).to_ascii_lowercase() {
            "null" => Is::Null,
            "not_null" => Is::NotNull,
            "true" => Is::True,
            "false" => Is::False,
            "unknown" => Is::Unknown,
            _ => return Err(before.error().hint("is takes null, not_null, true, false, unknown")),
        };
        Filter::Is(field, wanted)
    } else {
        return Err(before.error().hint(
            "the operators are eq, neq, gt, gte, lt, lte, like, ilike, in and is, each also \
             behind not.",
        ));
    };
    Ok(if negated { Filter::Not(Box::new(filter)) } else { filter })
}

/// `(a,"b")`; `()` is the empty list.
fn list(scanner: &mut Scanner<'_>, budget: &mut Budget) -> Result<Vec<String>, RestError> {
    scanner.expect("(")?;
    let mut values = Vec::new();
    loop {
        budget.values = budget
            .values
            .checked_sub(1)
            .ok_or_else(|| RestError::too_complex("values in lists", MOST_VALUES))?;
        values.push(scanner.list_value());
        if scanner.take(")") {
            break;
        }
        scanner.expect(",")?;
    }
    // PostgREST takes a list of one empty text for the empty list, quoted or not.
    if values.len() == 1 && values.iter().all(String::is_empty) {
        values.clear();
    }
    Ok(values)
}
