//! Expressions: operands, what follows them, and operators by how tightly they bind.

use rowan::Checkpoint;

use super::{
    cursor::{Mode, Parser},
    operators::{self, Infix},
    patterns::Typed,
    statements::HEAD,
};
use crate::{SyntaxKind, diagnostic::Code, source::Span};

impl Parser<'_> {
    /// An expression of any level.
    pub(super) fn expr(&mut self) {
        self.expr_at(operators::RESCUE);
    }

    /// An expression of at least this level, with the operators to its right that bind at least as tightly.
    fn expr_at(&mut self, least: u8) {
        if !self.enter() {
            return;
        }
        let outer = self.begin_measure();
        let place = self.checkpoint();
        let before = self.position();
        let start = self.span().start;
        self.prefix();
        if self.position() > before {
            self.infixes(place, start, least);
        }
        self.end_measure(outer);
        self.leave();
    }

    fn infixes(&mut self, place: Checkpoint, start: u32, least: u8) {
        let mut last_comparison: Option<Span> = None;
        while let Some(Infix { level, right, node }) = self.infix_here() {
            if level < least || !self.wrap() {
                return;
            }
            let operator = self.span();
            let is_coalesce = self.at(SyntaxKind::QuestionQuestion);
            if level == operators::COMPARE
                && let Some(first) = last_comparison.replace(operator)
            {
                self.report(Code::E0211, operator, "comparisons cannot be chained", |diagnostic| {
                    diagnostic.label(first, "the first comparison").help("join two comparisons with `and`")
                });
            }
            self.start_at(place, node);
            if is_coalesce && self.at_older_table(1) {
                self.bump();
                self.older_table(start, operator);
            } else {
                self.operator_and_right(node, right);
            }
            self.finish();
            if is_coalesce && self.at(SyntaxKind::Colon) {
                self.older_branch(place, start, operator, least > operators::PIPE);
            }
        }
    }

    fn infix_here(&self) -> Option<Infix> {
        let kind = self.current();
        let infix = if kind == SyntaxKind::Ident {
            self.is_rescue_word().then_some(operators::RESCUE_OPERATOR)
        } else {
            operators::infix(kind)
        };
        infix.filter(|_| !self.is_cut_off())
    }

    fn operator_and_right(&mut self, node: SyntaxKind, right: u8) {
        match (node, self.current()) {
            (SyntaxKind::RescueExpr, _) => {
                let keyword = if self.at_word("otherwise") { SyntaxKind::OtherwiseKw } else { SyntaxKind::FallbackKw };
                self.bump_as(keyword);
                self.expr_at(right);
            }
            (SyntaxKind::BranchExpr, _) => self.branch(),
            (_, SyntaxKind::PipeFork | SyntaxKind::PipeDetach) if self.nth(1) == SyntaxKind::BracketOpen => {
                self.bump();
                self.fork_list();
                self.merge_clause();
            }
            _ => {
                self.bump();
                self.expr_at(right);
            }
        }
    }

    /// `?> c => S : F` or `?> { c => S, _ => T }`, from the operator on.
    fn branch(&mut self) {
        self.bump();
        if self.at(SyntaxKind::BraceOpen) {
            return self.arm_list(Parser::table_arm);
        }
        self.expr_at(operators::OR);
        if self.expect(SyntaxKind::FatArrow) {
            self.stage();
            if self.expect(SyntaxKind::Colon) {
                self.stage();
            }
        }
    }

    /// A stage of a branch: a name, a call, `_`, or something in parentheses.
    pub(super) fn stage(&mut self) {
        if self.enter() {
            self.postfix();
            self.leave();
        }
    }

    /// Prefix operators and the forms that reach as far right as they can.
    fn prefix(&mut self) {
        match self.current() {
            SyntaxKind::Minus => self.prefixed(SyntaxKind::PrefixExpr, |parser| {
                if parser.at(SyntaxKind::Int) && parser.nth(1) != SyntaxKind::Dot {
                    parser.literal(true)
                } else {
                    parser.prefix()
                }
            }),
            SyntaxKind::Bang => self.prefixed(SyntaxKind::PrefixExpr, Parser::prefix),
            SyntaxKind::AwaitKw => self.prefixed(SyntaxKind::AwaitExpr, Parser::prefix),
            SyntaxKind::NotKw => self.prefixed(SyntaxKind::PrefixExpr, |parser| parser.expr_at(operators::NOT)),
            SyntaxKind::IfKw => self.if_expr(),
            SyntaxKind::MatchKw => self.match_expr(),
            SyntaxKind::TryKw => self.try_expr(),
            SyntaxKind::FnKw => self.lambda(),
            SyntaxKind::Ident if self.nth(1) == SyntaxKind::Ident && self.at_word("spawn") => {
                self.start(SyntaxKind::SpawnExpr);
                self.bump_as(SyntaxKind::SpawnKw);
                self.postfix();
                self.finish();
            }
            SyntaxKind::Ident if self.nth(1) == SyntaxKind::BracketOpen && self.at_word("fork") => {
                self.start(SyntaxKind::ForkExpr);
                self.bump_as(SyntaxKind::ForkKw);
                self.fork_list();
                self.merge_clause();
                self.finish();
            }
            _ => self.postfix(),
        }
    }

    fn prefixed(&mut self, node: SyntaxKind, operand: impl FnOnce(&mut Self)) {
        if !self.enter() {
            return;
        }
        self.start(node);
        self.bump();
        operand(self);
        self.finish();
        self.leave();
    }

    /// An operand and the fields, calls, indices and `?` after it.
    fn postfix(&mut self) {
        let outer = self.begin_measure();
        let place = self.checkpoint();
        let before = self.position();
        self.operand();
        while self.position() > before && self.is_postfix_here() && self.wrap() {
            match self.current() {
                SyntaxKind::Dot => {
                    self.start_at(place, SyntaxKind::FieldExpr);
                    self.bump();
                    self.name("the name of a field or method");
                }
                SyntaxKind::ParenOpen => {
                    self.start_at(place, SyntaxKind::CallExpr);
                    self.arg_list();
                }
                SyntaxKind::BracketOpen => {
                    self.start_at(place, SyntaxKind::IndexExpr);
                    let opener = self.span();
                    self.bump();
                    self.within(Mode::BRACKET, |parser| {
                        parser.expr();
                        parser.close_or_skip(SyntaxKind::BracketClose, opener);
                    });
                }
                SyntaxKind::Question => {
                    self.start_at(place, SyntaxKind::UnwrapExpr);
                    self.bump();
                }
                _ => {
                    self.start_at(place, SyntaxKind::RecordExpr);
                    self.list(SyntaxKind::BraceClose, Parser::record_field);
                }
            }
            self.finish();
        }
        self.end_measure(outer);
    }

    fn is_postfix_here(&self) -> bool {
        let is_postfix = match self.current() {
            SyntaxKind::Dot | SyntaxKind::ParenOpen | SyntaxKind::BracketOpen | SyntaxKind::Question => true,
            // `Brief { title: "T" }`: only a name can be a type, and in the head of a statement the brace opens its body.
            SyntaxKind::BraceOpen => {
                self.mode.braces && self.previous_kind() == SyntaxKind::Ident && self.brace_opens_a_record()
            }
            _ => false,
        };
        is_postfix && !self.is_cut_off()
    }

    fn brace_opens_a_record(&self) -> bool {
        let first = self.nth(1);
        first == SyntaxKind::BraceClose
            || ((first == SyntaxKind::Ident || first.is_reserved_word()) && self.nth(2) == SyntaxKind::Colon)
    }

    fn if_expr(&mut self) {
        if !self.enter() {
            return;
        }
        self.start(SyntaxKind::IfExpr);
        self.bump();
        self.condition();
        self.body();
        if self.at(SyntaxKind::ElseKw) {
            self.bump();
            self.body();
        }
        self.finish();
        self.leave();
    }

    /// A side of an `if`, or the body of an arm or a lambda: a block, a record, or an expression.
    fn body(&mut self) {
        if self.at(SyntaxKind::BraceOpen) && !self.brace_opens_a_value() {
            self.block();
        } else {
            self.expr();
        }
    }

    /// Whether `{` begins a record or a dict rather than a block; `{}` is an empty block.
    fn brace_opens_a_value(&self) -> bool {
        let first = self.nth(1);
        let is_record = (first == SyntaxKind::Ident || first.is_reserved_word()) && self.nth(2) == SyntaxKind::Colon;
        let is_dict = first == SyntaxKind::StrOpen
            && self.nth(2) == SyntaxKind::StrText
            && self.nth(3) == SyntaxKind::StrClose
            && self.nth(4) == SyntaxKind::Colon;
        is_record || is_dict
    }

    fn match_expr(&mut self) {
        self.start(SyntaxKind::MatchExpr);
        self.bump();
        self.within(HEAD, Parser::expr);
        self.arm_list(Parser::match_arm);
        self.finish();
    }

    /// `{ arm, arm }`; a newline ends an arm too.
    pub(super) fn arm_list(&mut self, arm: impl FnMut(&mut Self)) {
        if !self.enter() {
            return;
        }
        self.start(SyntaxKind::ArmList);
        self.entries(SyntaxKind::BraceClose, arm);
        self.finish();
        self.leave();
    }

    fn match_arm(&mut self) {
        self.start(SyntaxKind::Arm);
        self.pattern(Typed::Yes);
        if self.at(SyntaxKind::IfKw) {
            self.start(SyntaxKind::Guard);
            self.bump();
            self.condition();
            self.finish();
        }
        self.arm_body();
        self.finish();
    }

    /// An arm of a branch table: a condition, then a stage.
    pub(super) fn table_arm(&mut self) {
        self.start(SyntaxKind::Arm);
        self.expr_at(operators::OR);
        if self.expect(SyntaxKind::FatArrow) {
            self.stage();
        }
        self.finish();
    }

    /// An arm of a `semantic_if` with labels.
    pub(super) fn labelled_arm(&mut self) {
        self.start(SyntaxKind::Arm);
        if self.at(SyntaxKind::Underscore) || self.at(SyntaxKind::StrOpen) {
            self.operand();
        } else {
            self.unexpected("a label or `_`");
        }
        self.arm_body();
        self.finish();
    }

    fn arm_body(&mut self) {
        if !self.expect(SyntaxKind::FatArrow) {
            return;
        }
        match self.current() {
            SyntaxKind::ReturnKw | SyntaxKind::BreakKw | SyntaxKind::ContinueKw => self.jump(),
            _ => self.body(),
        }
    }

    /// `try e`, or `try (options) { … } catch (e) { … }`.
    fn try_expr(&mut self) {
        let has_options = self.nth(1) == SyntaxKind::ParenOpen
            && self.nth(2) == SyntaxKind::Ident
            && self.nth(3) == SyntaxKind::Colon;
        let place = self.checkpoint();
        self.bump();
        let has_block = has_options || (self.at(SyntaxKind::BraceOpen) && !self.brace_opens_a_value());
        self.start_at(place, if has_block { SyntaxKind::TryBlock } else { SyntaxKind::TryExpr });
        if has_block {
            self.try_block(has_options);
        } else {
            self.expr();
        }
        self.finish();
    }

    fn try_block(&mut self, has_options: bool) {
        if has_options {
            self.arg_list();
        }
        self.block();
        if !self.at(SyntaxKind::CatchKw) {
            return self.unexpected("`catch` and a name for the error");
        }
        self.start(SyntaxKind::CatchClause);
        self.bump();
        let opener = self.span();
        if self.expect(SyntaxKind::ParenOpen) {
            self.name("the name of the error");
            self.close_or_skip(SyntaxKind::ParenClose, opener);
        }
        self.block();
        self.finish();
    }

    /// `fn(x) => e` or `fn(x) { … }`.
    fn lambda(&mut self) {
        self.start(SyntaxKind::LambdaExpr);
        self.bump();
        if self.at(SyntaxKind::ParenOpen) {
            self.param_list(Parser::lambda_param);
        } else {
            self.unexpected("the parameters in parentheses");
        }
        if self.at(SyntaxKind::ThinArrow) {
            self.result_type();
        }
        if self.at(SyntaxKind::BraceOpen) {
            self.block();
        } else if self.expect(SyntaxKind::FatArrow) {
            self.body();
        }
        self.finish();
    }
}
