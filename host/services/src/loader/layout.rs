//! Compares the layouts of the ABI's types, and describes the first difference in one line.
//!
//! `abi_stable` prints pages about a difference; a developer needs the type and the field.

use abi_stable::abi_stability::abi_checking::{
    AbiInstability, AbiInstabilityError, ExpectedFound, check_layout_compatibility,
};
use abi_stable::type_layout::{TLFieldOrFunction, TypeLayout};

/// Checks that code which expects `expected` can use `found`. Describes the first difference.
pub(super) fn compare(expected: &'static TypeLayout, found: &'static TypeLayout) -> Result<(), String> {
    check_layout_compatibility(expected, found).map_err(|errors| {
        // The deepest difference is the cause, those around it follow from it.
        match errors.errors.iter().max_by_key(|error| error.stack_trace.len()) {
            Some(error) => describe(expected, found, error),
            None => format!("type `{}`", expected.full_type()),
        }
    })
}

fn describe(expected: &'static TypeLayout, found: &'static TypeLayout, error: &AbiInstabilityError) -> String {
    let mut place = format!("type `{}`", expected.full_type());
    let mut types = (expected, found);
    let mut in_function = false;
    for ExpectedFound { expected, found } in &error.stack_trace {
        in_function = matches!(expected, TLFieldOrFunction::Function(_));
        match (expected, found) {
            (TLFieldOrFunction::Field(expected), TLFieldOrFunction::Field(found)) => {
                types = (expected.layout(), found.layout());
                // The inner field of a reference is called `0`, which says nothing.
                if expected.name() != "0" {
                    place = format!("{place}, field `{}`", expected.name());
                }
            }
            _ => place.push_str(", a function's parameters"),
        }
    }
    let what = error.errs.iter().map(|error| difference(error, types, in_function));
    format!("{place}: {}", what.collect::<Vec<_>>().join("; "))
}

fn difference(
    error: &AbiInstability,
    (expected, found): (&'static TypeLayout, &'static TypeLayout),
    in_function: bool,
) -> String {
    match error {
        AbiInstability::FieldCountMismatch(count) => {
            let missing = missing(expected, found);
            if in_function || missing.is_empty() {
                format!("{} fields expected, {} found", count.expected, count.found)
            } else {
                format!("field `{}` is missing", missing.join("`, `"))
            }
        }
        AbiInstability::UnexpectedField(field) => {
            format!("`{}` expected, `{}` found", field.expected.name(), field.found.name())
        }
        AbiInstability::Name(name) => {
            format!("type `{}` expected, `{}` found", name.expected, name.found)
        }
        AbiInstability::Package(package) => {
            format!("package `{}` expected, `{}` found", package.expected, package.found)
        }
        AbiInstability::PackageVersion(version) => {
            format!("version {} expected, {} found", version.expected, version.found)
        }
        AbiInstability::Size(size) => {
            format!("{} bytes expected, {} found", size.expected, size.found)
        }
        AbiInstability::Alignment(alignment) => {
            format!("alignment {} expected, {} found", alignment.expected, alignment.found)
        }
        AbiInstability::FnQualifierMismatch(_) => "the function's qualifiers differ".to_owned(),
        AbiInstability::FnLifetimeMismatch(_) | AbiInstability::FieldLifetimeMismatch(_) => {
            "lifetimes differ".to_owned()
        }
        AbiInstability::TooManyVariants(count) => {
            format!("{} variants expected, {} found", count.expected, count.found)
        }
        AbiInstability::UnexpectedVariant(variant) => {
            format!("variant `{}` expected, `{}` found", variant.expected, variant.found)
        }
        // Each of the other variants has its fact in the first line of its text.
        other => format!("{other:?}").lines().next().unwrap_or_default().to_owned(),
    }
}

/// The fields that `expected` has and `found` lacks.
fn missing(expected: &'static TypeLayout, found: &'static TypeLayout) -> Vec<&'static str> {
    let names = |layout: &'static TypeLayout| -> Vec<_> {
        layout.get_fields().map(|fields| fields.iter().map(|field| field.name()).collect()).unwrap_or_default()
    };
    let found = names(found);
    names(expected).into_iter().filter(|name| !found.contains(name)).collect()
}
