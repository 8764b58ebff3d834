//! What the policies of `infra/terraform` allow, decided as IAM would, so that tests can hold them against the requests
//! that the store sends.
//!
//! Only what those policies use is known here; anything else in one is refused when it is read, so that nothing is
//! judged that is not understood. IAM's rules: [policy elements], [multivalued condition keys], and for `DynamoDB`
//! [`dynamodb:LeadingKeys`].
//!
//! [policy elements]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_elements.html
//! [multivalued condition keys]: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_policies_condition-single-vs-multi-valued-context-keys.html
//! [`dynamodb:LeadingKeys`]: https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html

use serde_json::{Map, Value, json};

const LEADING_KEYS: &str = "dynamodb:LeadingKeys";

/// A policy document, read.
#[derive(Debug)]
pub struct Policy {
    statements: Vec<Statement>,
}

/// What somebody wants to do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Access {
    /// Such as `dynamodb:GetItem`. A transaction is an access for each of its parts; it has no action of its own.
    pub action: String,
    /// The table's ARN.
    pub resource: String,
    /// The partition keys that it names. None: it names none, as a `Scan` or a `DescribeTable`.
    pub leading_keys: Option<Vec<String>>,
}

#[derive(Debug)]
struct Statement {
    denies: bool,
    actions: Vec<String>,
    resources: Vec<String>,
    conditions: Vec<Condition>,
}

/// A condition on the partition keys.
#[derive(Debug)]
enum Condition {
    /// Each of them is one of these texts, in which `*` stands for any characters. True where there are none.
    All(Vec<String>),
    /// One of them is one of these texts. False where there are none.
    Any(Vec<String>),
    /// There are some.
    Present,
}

impl Policy {
    /// Reads one of Terraform's templates, in which the table's ARN is still to be put.
    ///
    /// # Errors
    /// Names what is not understood.
    pub fn from_template(template: &str, table_arn: &str) -> Result<Self, String> {
        Self::from_json(&template.replace("${table_arns}", &json!([table_arn]).to_string()))
    }

    fn from_json(text: &str) -> Result<Self, String> {
        let document: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let mut document = members(&document, "policy")?;
        if document.remove("Version") != Some(json!("2012-10-17")) {
            return Err("Version: not 2012-10-17".to_owned());
        }
        let Some(Value::Array(statements)) = document.remove("Statement") else {
            return Err("Statement: not a list".to_owned());
        };
        nothing_else(&document, "policy")?;
        let statements = statements.iter().map(Statement::read).collect::<Result<_, _>>()?;
        Ok(Self { statements })
    }

    /// Whether any statement allows it, and none denies it.
    pub fn allows(&self, access: &Access) -> bool {
        let mut speaking = self.statements.iter().filter(|statement| statement.is_of(access)).peekable();
        speaking.peek().is_some() && speaking.all(|statement| !statement.denies)
    }

    /// Whether a statement denies it, whatever else somebody is allowed by another policy.
    pub fn denies(&self, access: &Access) -> bool {
        self.statements.iter().any(|statement| statement.denies && statement.is_of(access))
    }
}

impl Statement {
    fn read(value: &Value) -> Result<Self, String> {
        let mut statement = members(value, "statement")?;
        let sid = statement.remove("Sid").unwrap_or_default();
        let of = |name: &str| format!("{}: {name}", sid.as_str().unwrap_or("statement"));
        let denies = match statement.remove("Effect").as_ref().and_then(Value::as_str) {
            Some("Allow") => false,
            Some("Deny") => true,
            _ => return Err(of("Effect is neither Allow nor Deny")),
        };
        let actions = texts(statement.remove("Action"), &of("Action"))?;
        let resources = texts(statement.remove("Resource"), &of("Resource"))?;
        if actions.iter().chain(&resources).any(|text| text.contains(['*', '?'])) {
            return Err(of("a wildcard, where each action and resource is to be named"));
        }
        let mut conditions = Vec::new();
        for (operator, keys) in
            members(&statement.remove("Condition").unwrap_or(json!({})), &of("Condition"))?
        {
            for (key, wanted) in members(&keys, &of(&operator))? {
                conditions.push(Condition::read(&operator, &key, wanted).ok_or_else(|| of(&operator))?);
            }
        }
        nothing_else(&statement, &of("statement"))?;
        Ok(Self { denies, actions, resources, conditions })
    }

    /// Whether it speaks of this.
    fn is_of(&self, access: &Access) -> bool {
        self.actions.contains(&access.action)
            && self.resources.contains(&access.resource)
            && self.conditions.iter().all(|condition| condition.holds(access.leading_keys.as_deref()))
    }
}

impl Condition {
    fn read(operator: &str, key: &str, wanted: Value) -> Option<Self> {
        if key != LEADING_KEYS {
            return None;
        }
        match operator {
            "ForAllValues:StringLike" => texts(Some(wanted), operator).ok().map(Self::All),
            "ForAnyValue:StringLike" => texts(Some(wanted), operator).ok().map(Self::Any),
            "Null" if wanted == json!("false") => Some(Self::Present),
            _ => None,
        }
    }

    fn holds(&self, leading_keys: Option<&[String]>) -> bool {
        let mut keys = leading_keys.unwrap_or_default().iter();
        let is_one_of =
            |key: &String, patterns: &[String]| patterns.iter().any(|pattern| is_like(key, pattern));
        match self {
            Self::All(patterns) => keys.all(|key| is_one_of(key, patterns)),
            Self::Any(patterns) => keys.any(|key| is_one_of(key, patterns)),
            Self::Present => leading_keys.is_some_and(|keys| !keys.is_empty()),
        }
    }
}

/// `StringLike`, for patterns that have one `*` at most, at their end.
fn is_like(text: &str, pattern: &str) -> bool {
    pattern.strip_suffix('*').map_or(text == pattern, |prefix| text.starts_with(prefix))
}

fn members(value: &Value, what: &str) -> Result<Map<String, Value>, String> {
    value.as_object().cloned().ok_or_else(|| format!("{what}: not an object"))
}

fn nothing_else(rest: &Map<String, Value>, what: &str) -> Result<(), String> {
    match rest.keys().next() {
        None => Ok(()),
        Some(name) => Err(format!("{what}: {name} is not known here")),
    }
}

/// A text, or a list of texts.
fn texts(value: Option<Value>, what: &str) -> Result<Vec<String>, String> {
    let wrong = || format!("{what}: neither a text nor a list of texts");
    let text = |value: Value| match value {
        Value::String(text) if !text.trim_end_matches('*').contains(['*', '?']) => Ok(text),
        _ => Err(wrong()),
    };
    match value {
        Some(Value::Array(values)) if !values.is_empty() => values.into_iter().map(text).collect(),
        Some(value @ Value::String(_)) => Ok(vec![text(value)?]),
        _ => Err(wrong()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &str = "arn:aws:dynamodb:eu-central-1:123456789012:table/t";

    fn policy(condition: &Value) -> Result<Policy, String> {
        let statement = json!({"Effect": "Allow", "Action": ["dynamodb:GetItem"], "Resource": TABLE, "Condition": condition});
        Policy::from_json(&json!({"Version": "2012-10-17", "Statement": [statement]}).to_string())
    }

    fn get(keys: &[&str]) -> Access {
        Access {
            action: "dynamodb:GetItem".to_owned(),
            resource: TABLE.to_owned(),
            leading_keys: Some(keys.iter().map(|&key| key.to_owned()).collect()),
        }
    }

    #[test]
    fn all_keys_must_match() {
        let policy =
            policy(&json!({"ForAllValues:StringLike": {LEADING_KEYS: ["CONFIG", "KEY#*"]}})).unwrap();
        assert!(policy.allows(&get(&["CONFIG"])));
        assert!(policy.allows(&get(&["KEY#a", "CONFIG"])));
        assert!(!policy.allows(&get(&["CONFIG2"])) && !policy.allows(&get(&["KEY"])));
        assert!(!policy.allows(&get(&["CONFIG", "LIMIT#a"])));
        let put = Access { action: "dynamodb:PutItem".to_owned(), ..get(&["CONFIG"]) };
        let elsewhere = Access { resource: format!("{TABLE}2"), ..get(&["CONFIG"]) };
        assert!(!policy.allows(&put) && !policy.allows(&elsewhere));
    }

    /// IAM's trap: a condition on all of no values is true.
    #[test]
    fn no_keys_match_anything_unless_some_are_demanded() {
        let all = json!({LEADING_KEYS: ["CONFIG"]});
        let none = Access { leading_keys: None, ..get(&[]) };
        assert!(policy(&json!({"ForAllValues:StringLike": all})).unwrap().allows(&none));
        let demanded = json!({"ForAllValues:StringLike": all, "Null": {LEADING_KEYS: "false"}});
        assert!(!policy(&demanded).unwrap().allows(&none));
    }

    #[test]
    fn a_denial_counts_whatever_is_allowed() {
        let deny = json!({"ForAnyValue:StringLike": {LEADING_KEYS: ["AUDIT", "A#*"]}});
        let statements = json!([
            {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": TABLE},
            {"Effect": "Deny", "Action": "dynamodb:GetItem", "Resource": TABLE, "Condition": deny},
            {"Effect": "Allow", "Action": "dynamodb:GetItem", "Resource": TABLE},
        ]);
        let document = json!({"Version": "2012-10-17", "Statement": statements});
        let policy = Policy::from_json(&document.to_string()).unwrap();
        for (keys, denied) in
            [(&["AUDIT"][..], true), (&["CONFIG", "A#1"], true), (&["CONFIG"], false), (&[], false)]
        {
            assert_eq!((policy.denies(&get(keys)), policy.allows(&get(keys))), (denied, !denied), "{keys:?}");
        }
        let put = Access { action: "dynamodb:PutItem".to_owned(), ..get(&["AUDIT"]) };
        assert!(!policy.denies(&put) && !policy.allows(&put));
    }

    #[test]
    fn what_is_not_understood_is_not_judged() {
        for condition in [
            json!({"ForAnyValue:StringEquals": {LEADING_KEYS: ["CONFIG"]}}),
            json!({"StringEquals": {"dynamodb:Select": "COUNT"}}),
            json!({"Null": {LEADING_KEYS: "true"}}),
            json!({"ForAllValues:StringLike": {LEADING_KEYS: ["*KEY"]}}),
        ] {
            policy(&condition).unwrap_err();
        }
        for statement in [
            json!({"Effect": "Maybe", "Action": "a", "Resource": "b"}),
            json!({"Effect": "Allow", "Action": "dynamodb:*", "Resource": "b"}),
            json!({"Effect": "Allow", "Action": "a", "Resource": "*"}),
            json!({"Effect": "Allow", "NotAction": "a", "Resource": "b"}),
            json!({"Effect": "Allow", "Action": "a", "Resource": "b", "Principal": "*"}),
        ] {
            let document = json!({"Version": "2012-10-17", "Statement": [statement]});
            Policy::from_json(&document.to_string()).unwrap_err();
        }
    }
}
