//! The places of a source that can be changed, and how.

use std::ops::Range;

use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{BinOp, Expr};

use crate::bodies;
use crate::identity::{hash, Ordinals};
use crate::modules::is_left_out;

/// One change. `text` is what stands in the place of the operator, or the statement that ends the function at once.
pub struct Change {
    /// `file function kind#ordinal hash`.
    pub identity: String,
    pub line: usize,
    pub text: String,
}

/// How the text of a site is put together with its changes.
pub enum Form {
    /// An operator between two expressions: the whole, and where the operator stands.
    Binary(Range<usize>),
    /// `!x`: where x stands.
    Not(Range<usize>),
    /// The inside of a function's body begins here.
    Body,
}

/// A place with one change or several, of which at most one is on.
pub struct Site {
    pub range: Range<usize>,
    pub form: Form,
    pub changes: Vec<Change>,
}

pub fn find(path: &str, text: &str, file: &syn::File) -> Vec<Site> {
    let mut finder = Finder {
        path,
        text,
        within: Vec::new(),
        functions: Vec::new(),
        sites: Vec::new(),
        seen: Ordinals::default(),
    };
    finder.visit_file(file);
    finder.sites
}

struct Function {
    name: String,
    hash: u32,
    ordinals: Ordinals,
}

struct Finder<'a> {
    path: &'a str,
    text: &'a str,
    /// Modules, types and functions around.
    within: Vec<String>,
    functions: Vec<Function>,
    sites: Vec<Site>,
    /// Functions of one name, as in two implementations of a type with other parameters.
    seen: Ordinals,
}

/// What other operators stand in the place of one.
fn others(operator: &BinOp) -> &'static [&'static str] {
    match operator {
        BinOp::Eq(_) => &["!="],
        BinOp::Ne(_) => &["=="],
        BinOp::Lt(_) => &["<=", ">="],
        BinOp::Le(_) => &["<", ">"],
        BinOp::Gt(_) => &[">=", "<="],
        BinOp::Ge(_) => &[">", "<"],
        BinOp::And(_) => &["||"],
        BinOp::Or(_) => &["&&"],
        BinOp::Add(_) => &["-"],
        BinOp::Sub(_) => &["+"],
        BinOp::Mul(_) => &["+"],
        BinOp::BitAnd(_) => &["|"],
        BinOp::BitOr(_) => &["&"],
        BinOp::AddAssign(_) => &["-="],
        BinOp::SubAssign(_) => &["+="],
        BinOp::BitAndAssign(_) => &["|="],
        BinOp::BitOrAssign(_) => &["&="],
        _ => &[],
    }
}

impl Finder<'_> {
    fn change(&mut self, kind: &str, line: usize, text: &str) -> Option<Change> {
        let function = self.functions.last_mut()?;
        let ordinal = function.ordinals.next(kind);
        let identity = format!("{} {} {kind}#{ordinal} {:08x}", self.path, function.name, function.hash);
        Some(Change { identity, line, text: text.to_string() })
    }

    fn named(&mut self, name: String, inside: impl FnOnce(&mut Self)) {
        self.within.push(name);
        inside(self);
        self.within.pop();
    }

    fn function(&mut self, attributes: &[syn::Attribute], signature: &syn::Signature, block: &syn::Block) {
        if is_left_out(attributes) || signature.constness.is_some() {
            return;
        }
        self.named(signature.ident.to_string(), |this| {
            let name = this.within.join("::");
            let again = match this.seen.next(&name) {
                1 => String::new(),
                number => format!("~{number}"),
            };
            let text = &this.text[signature.span().byte_range().start..block.span().byte_range().end];
            this.functions.push(Function {
                name: name + &again,
                hash: hash(text),
                ordinals: Ordinals::default(),
            });
            let start = block.brace_token.span.open().byte_range().end;
            let line = signature.ident.span().start().line;
            let defaults = if this.within.iter().any(|name| name.ends_with(":Debug>")) {
                Vec::new()
            } else {
                bodies::defaults(signature, block)
            };
            let changes: Vec<_> = defaults
                .iter()
                .filter_map(|default| {
                    this.change(&format!("return:{default}"), line, &format!("return {default};"))
                })
                .collect();
            if !changes.is_empty() {
                this.sites.push(Site { range: start..start, form: Form::Body, changes });
            }
            this.visit_block(block);
            this.functions.pop();
        });
    }
}

/// A type as one word.
fn word(text: &str) -> String {
    text.split_whitespace().collect()
}

impl<'ast> Visit<'ast> for Finder<'_> {
    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        if !is_left_out(&item.attrs) {
            self.named(item.ident.to_string(), |this| visit::visit_item_mod(this, item));
        }
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        if is_left_out(&item.attrs) {
            return;
        }
        let own = word(&self.text[item.self_ty.span().byte_range()]);
        let name = match &item.trait_ {
            Some((_, path, _)) => format!("<{own}:{}>", word(&self.text[path.span().byte_range()])),
            None => own,
        };
        self.named(name, |this| visit::visit_item_impl(this, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.named(item.ident.to_string(), |this| visit::visit_item_trait(this, item));
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.attrs, &item.sig, &item.block);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.attrs, &item.sig, block);
        }
    }

    // What the compiler evaluates itself, and patterns, cannot ask which mutant is on.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_trait_item_const(&mut self, _: &'ast syn::TraitItemConst) {}
    fn visit_variant(&mut self, _: &'ast syn::Variant) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_generic_argument(&mut self, _: &'ast syn::GenericArgument) {}
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
    fn visit_expr_const(&mut self, _: &'ast syn::ExprConst) {}
    fn visit_attribute(&mut self, _: &'ast syn::Attribute) {}
    fn visit_expr_repeat(&mut self, repeat: &'ast syn::ExprRepeat) {
        self.visit_expr(&repeat.expr);
    }

    fn visit_local(&mut self, local: &'ast syn::Local) {
        if !is_left_out(&local.attrs) {
            visit::visit_local(self, local);
        }
    }

    fn visit_expr_block(&mut self, block: &'ast syn::ExprBlock) {
        if !is_left_out(&block.attrs) {
            visit::visit_expr_block(self, block);
        }
    }

    fn visit_expr(&mut self, expression: &'ast Expr) {
        let range = expression.span().byte_range();
        let line = expression.span().start().line;
        match expression {
            Expr::Binary(binary) => {
                let operator = binary.op.span().byte_range();
                let kind = self.text[operator.clone()].to_string();
                let line = binary.op.span().start().line;
                let changes: Vec<_> = others(&binary.op)
                    .iter()
                    .filter_map(|other| self.change(&format!("{kind}:{other}"), line, other))
                    .collect();
                if !changes.is_empty() {
                    self.sites.push(Site { range, form: Form::Binary(operator), changes });
                }
            }
            Expr::Unary(unary) if matches!(unary.op, syn::UnOp::Not(_)) => {
                if let Some(change) = self.change("!:", line, "") {
                    let inner = unary.expr.span().byte_range();
                    self.sites.push(Site { range, form: Form::Not(inner), changes: vec![change] });
                }
            }
            _ => {}
        }
        visit::visit_expr(self, expression);
    }
}
