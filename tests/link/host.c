/* A host that knows the library only from what it loads: the shared library itself (argv[1]), a plugin that is linked to it
 * (argv[2]) and one with the static library inside (argv[3]). Local and global, twice at once, closed and loaded again; and
 * bytes move between the engines of any two. */
#include <dlfcn.h>
#include <unistd.h>

#include "plugin.h"

static struct engine_table from_table, to_table;
#define FROM(name) from_table.name
#define TO(name) to_table.name
#include "moves.h"

/* The library's functions by name, or those of a plugin by its table. */
static int fill(struct engine_table *table, void *handle) {
    const struct engine_table *(*plugin_table)(void);
    void *symbol = dlsym(handle, "plugin_table");
    if (symbol != NULL) {
        memcpy(&plugin_table, &symbol, sizeof symbol);
        *table = *plugin_table();
        return 0;
    }
#define FIND(name)                                                    \
    symbol = dlsym(handle, #name);                                    \
    if (symbol == NULL) return fprintf(stderr, "%s\n", dlerror()), 1; \
    memcpy(&table->name, &symbol, sizeof symbol);
    FUNCTIONS(FIND)
    return 0;
}

static void *load(const char *path, int scope) {
    void *handle = dlopen(path, RTLD_NOW | scope);
    if (handle == NULL) fprintf(stderr, "%s\n", dlerror());
    return handle;
}

/* Bytes from what one path loads to what another does, then everything is closed. */
static int between(const char *from_path, const char *to_path, int scope) {
    void *from = load(from_path, scope), *to = load(to_path, scope), *again = load(from_path, scope);
    if (from == NULL || to == NULL || again != from) return 1;
    if (dlclose(again) != 0 || fill(&from_table, from) != 0 || fill(&to_table, to) != 0) return 1;
    int failed = moves_bytes();
    if (failed) fprintf(stderr, "from %s to %s, scope %d\n", from_path, to_path, scope);
    return failed | (dlclose(to) != 0) | (dlclose(from) != 0);
}

int main(int argc, char **argv) {
    alarm(240);
    if (argc != 4) return fprintf(stderr, "usage: %s LIBRARY PLUGIN PLUGIN\n", argv[0]), 2;
    const int scopes[] = {RTLD_LOCAL, RTLD_GLOBAL, RTLD_LOCAL};
    for (int scope = 0; scope < 3; scope++)
        for (int from = 1; from < argc; from++)
            for (int to = 1; to < argc; to++)
                if (between(argv[from], argv[to], scopes[scope]) != 0) return 1;
    /* Libraries with threads stay mapped; the program must end well with them. */
    return 0;
}
