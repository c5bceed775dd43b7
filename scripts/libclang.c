// Tries a libclang as rdma-sys' bindgen will use it:  libclang LIBRARY HEADER [ARGUMENT OF CLANG...]
// Prints its version and ends with 0, or says on standard error why bindgen would fail, and ends with 1.

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

// The part of clang-c/Index.h that is used, so that no development package of clang is needed.
struct string {
    const void *data;
    unsigned flags;
};
struct cursor {
    int kind, extra;
    const void *data[3];
};
enum { VISIT_RECURSE = 2, CURSOR_UNION = 3, SEVERITY_ERROR = 3 };

static const char *(*string_of)(struct string);
static struct string (*cursor_spelling)(struct cursor);
static int unions, named_unions;

static int visit(struct cursor cursor, struct cursor parent, void *data) {
    (void)data;
    if (cursor.kind == CURSOR_UNION && strcmp(string_of(cursor_spelling(parent)), "libclang_try") == 0) {
        unions++;
        named_unions += string_of(cursor_spelling(cursor))[0] != '\0';
    }
    return VISIT_RECURSE;
}

static void *library;
static void *function(const char *name) {
    void *found = dlsym(library, name);
    if (!found) fprintf(stderr, "%s is missing in the library\n", name), exit(1);
    return found;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    if (!library) return fprintf(stderr, "it cannot be loaded: %s\n", dlerror()), 1;
    *(void **)&string_of = function("clang_getCString");
    *(void **)&cursor_spelling = function("clang_getCursorSpelling");
    struct string (*version)(void);
    *(void **)&version = function("clang_getClangVersion");
    void *(*create_index)(int, int);
    *(void **)&create_index = function("clang_createIndex");
    void *(*parse)(void *, const char *, const char *const *, int, void *, unsigned, unsigned);
    *(void **)&parse = function("clang_parseTranslationUnit");
    unsigned (*diagnostics)(void *);
    *(void **)&diagnostics = function("clang_getNumDiagnostics");
    void *(*diagnostic)(void *, unsigned);
    *(void **)&diagnostic = function("clang_getDiagnostic");
    int (*severity)(void *);
    *(void **)&severity = function("clang_getDiagnosticSeverity");
    struct string (*format)(void *, unsigned);
    *(void **)&format = function("clang_formatDiagnostic");
    struct cursor (*root)(void *);
    *(void **)&root = function("clang_getTranslationUnitCursor");
    unsigned (*visit_children)(struct cursor, int (*)(struct cursor, struct cursor, void *), void *);
    *(void **)&visit_children = function("clang_visitChildren");

    void *unit = parse(create_index(0, 0), argv[2], (const char *const *)argv + 3, argc - 3, NULL, 0, 0);
    if (!unit) return fprintf(stderr, "it cannot parse %s\n", argv[2]), 1;
    for (unsigned i = 0; i < diagnostics(unit); i++) {
        void *one = diagnostic(unit, i);
        if (severity(one) >= SEVERITY_ERROR) return fprintf(stderr, "%s\n", string_of(format(one, 1))), 1;
    }
    visit_children(root(unit), visit, NULL);
    if (unions == 0) return fprintf(stderr, "it does not see the union in %s\n", argv[2]), 1;
    // From version 16 on, nameless types have a spelling, which bindgen 0.59 takes for a name and panics.
    if (named_unions > 0) return fprintf(stderr, "%s is too new for bindgen 0.59\n", string_of(version())), 1;
    puts(string_of(version()));
    return 0;
}
