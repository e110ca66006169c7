//! What PostgreSQL's users write in ways of its own, in the engine's words: `to_char` patterns, `current_user` and its like,
//! `FETCH FIRST`, `variance`, `set_config`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, LimitClause, Query, SelectItem,
    SetExpr, Statement as Sql, TimezoneInfo, Value, VisitMut as _, VisitorMut,
};
use datafusion::sql::sqlparser::parser::ParserError;

use super::dialect::call;

/// Words that are answered without parentheses. Who has come in has no name here: everybody may ask the same.
const WORDS: [(&str, &str); 6] = [
    ("current_user", "postgres"),
    ("session_user", "postgres"),
    ("current_role", "postgres"),
    ("user", "postgres"),
    ("current_catalog", "volant"),
    ("current_schema", "public"),
];

/// Puts a statement in the engine's words.
pub(super) fn read_forms(statement: &mut Sql) -> Result<(), ParserError> {
    match statement.visit(&mut Forms) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Forms;

impl VisitorMut for Forms {
    type Break = ParserError;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<ParserError> {
        fetch_as_limit(query);
        if let SetExpr::Select(select) = query.body.as_mut() {
            let mut given = Vec::new();
            for (place, item) in select.projection.iter_mut().enumerate() {
                // Under the name that PostgreSQL gives it, and each another, which the engine wants.
                if let SelectItem::UnnamedExpr(expr) = item
                    && let Some(name) = name_of(expr)
                {
                    let alias = if given.contains(&name) { format!("{name}{place}") } else { name.clone() };
                    given.push(name);
                    *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: Ident::with_quote('"', alias) };
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<ParserError> {
        if let Some(word) = word_of(expr) {
            let answer = WORDS.iter().find(|(known, _)| *known == word).map(|(_, answer)| *answer);
            *expr = match answer {
                Some(answer) => Expr::Value(Value::SingleQuotedString(answer.to_owned()).into()),
                None => local_time(),
            };
            return ControlFlow::Continue(());
        }
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        if let Some(pattern) = pattern_of(function) {
            match chrono_of(pattern) {
                Ok(put) => *pattern = put,
                Err(problem) => return ControlFlow::Break(ParserError::ParserError(problem)),
            }
        } else if is_called(function, "variance") {
            function.name = vec![Ident::new("var_samp")].into();
        } else if let Some(value) = setting_of(function) {
            *expr = value;
        }
        ControlFlow::Continue(())
    }
}

/// `FETCH FIRST n ROWS ONLY` is `LIMIT n`. With ties, or of a hundred, it is not.
fn fetch_as_limit(query: &mut Query) {
    let plain = query.fetch.as_ref().is_some_and(|fetch| !fetch.with_ties && !fetch.percent);
    let (offset, free) = match &query.limit_clause {
        None => (None, true),
        Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) => (offset.clone(), limit_by.is_empty()),
        Some(_) => (None, false),
    };
    if plain
        && free
        && let Some(fetch) = query.fetch.take()
    {
        let limit = fetch.quantity.unwrap_or_else(|| Expr::Value(Value::Number("1".to_owned(), false).into()));
        query.limit_clause = Some(LimitClause::LimitOffset { limit: Some(limit), offset, limit_by: Vec::new() });
    }
}

/// What a column of a selection is called, where it is one of these forms.
fn name_of(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Exists { .. } => Some("exists".to_owned()),
        Expr::Function(function) if is_called(function, "variance") => Some("variance".to_owned()),
        _ => word_of(expr),
    }
}

/// A word of [`WORDS`] or `localtimestamp`, as it stands without quotes and parentheses.
fn word_of(expr: &Expr) -> Option<String> {
    let word = match expr {
        Expr::Identifier(word) if word.quote_style.is_none() => word.value.to_ascii_lowercase(),
        Expr::Function(Function { name, args: FunctionArguments::None, .. }) => name.to_string().to_ascii_lowercase(),
        _ => return None,
    };
    (word == "localtimestamp" || WORDS.iter().any(|(known, _)| *known == word)).then_some(word)
}

fn local_time() -> Expr {
    Expr::Cast {
        kind: datafusion::sql::sqlparser::ast::CastKind::Cast,
        expr: Box::new(call("now", Vec::new())),
        data_type: DataType::Timestamp(None, TimezoneInfo::None),
        array: false,
        format: None,
    }
}

/// `set_config(name, value, is_local)` answers the value, and nothing here can be set.
fn setting_of(function: &Function) -> Option<Expr> {
    let FunctionArguments::List(list) = &function.args else { return None };
    let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(value)), _] = list.args.as_slice() else { return None };
    is_called(function, "set_config").then(|| value.clone())
}

fn is_called(function: &Function, name: &str) -> bool {
    function.name.to_string().eq_ignore_ascii_case(name)
}

/// The pattern of a `to_char`, unless it is in the engine's own words, which have a `%`.
fn pattern_of(function: &mut Function) -> Option<&mut String> {
    if !is_called(function, "to_char") {
        return None;
    }
    let FunctionArguments::List(list) = &mut function.args else { return None };
    let [_, FunctionArg::Unnamed(FunctionArgExpr::Expr(Expr::Value(pattern)))] = list.args.as_mut_slice() else {
        return None;
    };
    match &mut pattern.value {
        Value::SingleQuotedString(pattern) if !pattern.contains('%') => Some(pattern),
        _ => None,
    }
}

/// PostgreSQL's patterns for times and chrono's, the longer first where one begins another. A pattern without padding (`FM`) has its own.
const PATTERNS: [(&str, &str, Option<&str>); 31] = [
    ("YYYY", "%Y", Some("%-Y")),
    ("yyyy", "%Y", Some("%-Y")),
    ("IYYY", "%G", Some("%-G")),
    ("YY", "%y", Some("%-y")),
    ("yy", "%y", Some("%-y")),
    ("Month", "%B", Some("%B")),
    ("Mon", "%b", Some("%b")),
    ("MM", "%m", Some("%-m")),
    ("mm", "%m", Some("%-m")),
    ("Day", "%A", Some("%A")),
    ("Dy", "%a", Some("%a")),
    ("DDD", "%j", Some("%-j")),
    ("ddd", "%j", Some("%-j")),
    ("DD", "%d", Some("%-d")),
    ("dd", "%d", Some("%-d")),
    ("ID", "%u", Some("%u")),
    ("IW", "%V", Some("%-V")),
    ("Q", "%q", Some("%q")),
    ("HH24", "%H", Some("%-H")),
    ("hh24", "%H", Some("%-H")),
    ("HH12", "%I", Some("%-I")),
    ("hh12", "%I", Some("%-I")),
    ("HH", "%I", Some("%-I")),
    ("hh", "%I", Some("%-I")),
    ("MI", "%M", Some("%-M")),
    ("mi", "%M", Some("%-M")),
    ("SS", "%S", Some("%-S")),
    ("ss", "%S", Some("%-S")),
    ("MS", "%3f", None),
    ("US", "%6f", None),
    ("AM", "%p", Some("%p")),
];

/// A pattern of PostgreSQL's in chrono's words. `Month` and `Day` come without the blanks that PostgreSQL fills them up with.
fn chrono_of(pattern: &str) -> Result<String, String> {
    let mut put = String::new();
    let mut rest = pattern;
    while let Some(letter) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let (literal, after) = quoted.split_once('"').unwrap_or((quoted, ""));
            put.push_str(literal);
            rest = after;
            continue;
        }
        let (bare, unpadded) = match rest.strip_prefix("FM") {
            Some(bare) => (bare, true),
            None => (rest, false),
        };
        let bare = if let Some(after) = bare.strip_prefix("PM") { format!("AM{after}") } else { bare.to_owned() };
        let known = PATTERNS.iter().find(|(theirs, ..)| bare.starts_with(theirs));
        let chrono = known.and_then(|(_, padded, bare)| if unpadded { *bare } else { Some(padded) });
        match (known, chrono) {
            (Some((theirs, ..)), Some(chrono)) => {
                put.push_str(chrono);
                rest = &rest[theirs.len() + if unpadded { 2 } else { 0 }..];
            }
            _ if letter.is_ascii_alphabetic() => {
                return Err(format!(
                    "to_char: {rest:?} in the pattern {pattern:?} is not known here; the engine's own patterns are chrono's, such as %Y-%m-%d"
                ));
            }
            _ => {
                put.push(letter);
                rest = &rest[letter.len_utf8()..];
            }
        }
    }
    Ok(put)
}

#[cfg(test)]
mod tests {
    use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
    use datafusion::sql::sqlparser::parser::Parser;

    use super::*;

    fn put(sql: &str) -> String {
        let mut statement = Parser::parse_sql(&PostgreSqlDialect {}, sql).unwrap().remove(0);
        read_forms(&mut statement).unwrap();
        statement.to_string()
    }

    #[test]
    fn patterns_of_times_are_put_and_others_refused() {
        for (theirs, chrono) in [
            ("YYYY-MM-DD", "%Y-%m-%d"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS.MS", "%Y-%m-%dT%H:%M:%S.%3f"),
            ("FMHH12:MI PM, Dy DD Mon YY", "%-I:%M %p, %a %d %b %y"),
            ("IYYY-IW-ID DDD Q US", "%G-%V-%u %j %q %6f"),
            ("FMMonth FMDD", "%B %-d"),
            ("YYYY年MM月DD日", "%Y年%m月%d日"),
        ] {
            assert_eq!(chrono_of(theirs).as_deref(), Ok(chrono), "{theirs}");
        }
        assert!(chrono_of("YYYY-RM").unwrap_err().contains("RM"));
        assert_eq!(put("SELECT to_char(t, '%Y') FROM x"), "SELECT to_char(t, '%Y') FROM x");
    }

    #[test]
    fn words_and_forms_are_put_under_their_names() {
        assert_eq!(
            put("SELECT current_user, CURRENT_CATALOG AS c FROM x WHERE y = current_schema"),
            "SELECT 'postgres' AS \"current_user\", 'volant' AS c FROM x WHERE y = 'public'"
        );
        assert_eq!(put("SELECT user, user"), "SELECT 'postgres' AS \"user\", 'postgres' AS \"user1\"");
        assert_eq!(put("SELECT \"user\", t.user FROM t"), "SELECT \"user\", t.user FROM t");
        assert_eq!(put("SELECT a FROM x FETCH FIRST ROW ONLY"), "SELECT a FROM x LIMIT 1");
        assert_eq!(
            put("SELECT a FROM x OFFSET 3 ROWS FETCH NEXT 2 ROWS ONLY"),
            "SELECT a FROM x LIMIT 2 OFFSET 3 ROWS"
        );
        assert_eq!(
            put("SELECT EXISTS (SELECT a, a FROM x WHERE b)"),
            "SELECT EXISTS (SELECT a, a FROM x WHERE b) AS \"exists\""
        );
        let where_exists = "SELECT a FROM x WHERE EXISTS (SELECT 1 FROM y)";
        assert_eq!(put(where_exists), where_exists);
        assert_eq!(put("SELECT variance(a) FROM x"), "SELECT var_samp(a) AS \"variance\" FROM x");
        assert_eq!(put("SELECT set_config('jit', 'off', false) AS new"), "SELECT 'off' AS new");
    }
}
