//! What a function returns when its body is left out.

use syn::{Block, GenericArgument, PathArguments, ReturnType, Signature, Type};

/// The values that may stand for the whole body, as they are written; none where no simple value fits, or where the body is that value.
pub fn defaults(signature: &Signature, block: &Block) -> Vec<String> {
    // `let _ = argument;` is no more than a word to the compiler.
    let left: Vec<_> = block.stmts.iter().filter(|statement| !is_nothing(statement)).collect();
    if left.is_empty() {
        return Vec::new();
    }
    let mut values = match &signature.output {
        ReturnType::Default => vec![String::new()],
        ReturnType::Type(_, kind) => of_type(kind),
    };
    if let [syn::Stmt::Expr(only, None)] = left.as_slice() {
        let only = written(only);
        values.retain(|value| Some(value) != only.as_ref());
    }
    values
}

fn is_nothing(statement: &syn::Stmt) -> bool {
    let syn::Stmt::Local(local) = statement else { return false };
    let given = local.init.as_ref().map(|init| &*init.expr);
    matches!(local.pat, syn::Pat::Wild(_)) && matches!(given, Some(syn::Expr::Path(_)))
}

fn of_type(kind: &Type) -> Vec<String> {
    let texts = |values: &[&str]| values.iter().map(|value| (*value).to_string()).collect();
    match kind {
        Type::Tuple(tuple) if tuple.elems.is_empty() => texts(&["()"]),
        Type::Reference(reference) if is_named(&reference.elem, "str") => texts(&["\"\""]),
        Type::Path(path) => {
            let Some(last) = path.path.segments.last() else { return Vec::new() };
            match last.ident.to_string().as_str() {
                "bool" => texts(&["true", "false"]),
                "u8" | "u16" | "u32" | "u64" | "u128" | "usize" | "i8" | "i16" | "i32" | "i64" | "i128"
                | "isize" | "c_int" => texts(&["0", "1"]),
                "String" => texts(&["String::new()"]),
                "Vec" => texts(&["Vec::new()"]),
                "Duration" => texts(&["std::time::Duration::ZERO"]),
                "Option" => texts(&["None"]),
                "Result" => match first(&last.arguments) {
                    Some(inner) => of_type(inner).into_iter().map(|value| format!("Ok({value})")).collect(),
                    None => texts(&["Ok(())"]),
                },
                _ => Vec::new(),
            }
        }
        _ => Vec::new(),
    }
}

fn is_named(kind: &Type, name: &str) -> bool {
    matches!(kind, Type::Path(path) if path.path.is_ident(name))
}

fn first(arguments: &PathArguments) -> Option<&Type> {
    let PathArguments::AngleBracketed(arguments) = arguments else { return None };
    arguments.args.iter().find_map(|argument| match argument {
        GenericArgument::Type(kind) => Some(kind),
        _ => None,
    })
}

/// A body of one literal or path, as it is written.
fn written(only: &syn::Expr) -> Option<String> {
    match only {
        syn::Expr::Lit(literal) => match &literal.lit {
            syn::Lit::Bool(value) => Some(value.value.to_string()),
            syn::Lit::Int(value) => Some(value.base10_digits().to_string()),
            syn::Lit::Str(value) => Some(format!("{:?}", value.value())),
            _ => None,
        },
        syn::Expr::Path(path) => path.path.get_ident().map(ToString::to_string),
        syn::Expr::Tuple(tuple) if tuple.elems.is_empty() => Some("()".to_string()),
        syn::Expr::Call(call) => {
            let [only] = call.args.iter().collect::<Vec<_>>()[..] else { return None };
            Some(format!("{}({})", written(&call.func)?, written(only)?))
        }
        _ => None,
    }
}
