/* The host's logger gets the lines of the library: with their level, without a time, on any thread; not once it is taken
 * back; it cannot change the logger. */
#include <arpa/inet.h>
#include <pthread.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "harness.h"

#define THREADS 4
#define ROUNDS 50

struct seen {
    atomic_int lines, infos, warnings, odd, inside;
    atomic_bool names_setting;
    int nested;
};

static void take(int level, const char *text, void *user) {
    struct seen *seen = user;
    atomic_fetch_add(&seen->lines, 1);
    if (level == MTE_LOG_INFO) atomic_fetch_add(&seen->infos, 1);
    if (level == MTE_LOG_WARNING) atomic_fetch_add(&seen->warnings, 1);
    if (level < MTE_LOG_TRACE || level > MTE_LOG_ERROR || text[0] == '\0' || strchr(text, '\n') != NULL) atomic_fetch_add(&seen->odd, 1);
    if (strstr(text, "MC_RETRY_CNT=many") == text) atomic_store(&seen->names_setting, true);
}

static void call_back(int level, const char *text, void *user) {
    struct seen *seen = user;
    (void)level, (void)text;
    atomic_fetch_add(&seen->lines, 1);
    seen->nested = mte_set_log_callback(NULL, NULL);
}

static void *chat(void *unused) {
    (void)unused;
    for (int i = 0; i < ROUNDS; i++) destroyTransferEngine(engine_open());
    return NULL;
}

/* While engines come and go, the logger is taken back again and again: afterwards it is in nobody's hands. */
static void taken_back_meanwhile(void) {
    pthread_t threads[THREADS];
    int late = 0;
    for (int i = 0; i < THREADS; i++) pthread_create(&threads[i], NULL, chat, NULL);
    for (int i = 0; i < ROUNDS; i++) {
        struct seen *seen = calloc(1, sizeof *seen);
        if (mte_set_log_callback(take, seen) != 0) late++;
        nap();
        if (mte_set_log_callback(NULL, NULL) != 0) late++;
        int lines = atomic_load(&seen->lines);
        nap();
        late += atomic_load(&seen->lines) != lines;
        free(seen);
    }
    for (int i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    CHECK_EQ("no line comes after a logger was taken back", late, 0);
}

struct slow {
    atomic_bool waits, went_on, told;
};

static void take_slowly(int level, const char *text, void *user) {
    struct slow *slow = user;
    bool went_on;
    (void)level;
    if (strstr(text, "metrics of this process are served") == NULL) return;
    atomic_store(&slow->waits, true);
    WAIT_UNTIL(went_on, atomic_load(&slow->went_on), 20000);
    atomic_store(&slow->told, went_on);
}

static void *come_and_go(void *user) {
    struct slow *slow = user;
    bool waits;
    WAIT_UNTIL(waits, atomic_load(&slow->waits), 20000);
    destroyTransferEngine(engine_open());
    atomic_store(&slow->went_on, waits);
    return NULL;
}

/* A logger that waits for another thread, while that creates and destroys an engine. */
static void lines_are_written_without_locks(void) {
    struct slow slow = {0};
    struct sockaddr_in at = {.sin_family = AF_INET};
    socklen_t len = sizeof at;
    int yes = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char port[8];
    pthread_t other;
    at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    REQUIRE("a free port", bind(fd, (struct sockaddr *)&at, sizeof at) == 0 && getsockname(fd, (struct sockaddr *)&at, &len) == 0);
    snprintf(port, sizeof port, "%d", ntohs(at.sin_port));
    setenv("MC_TE_METRIC", "1", 1);
    setenv("MC_TE_METRIC_HTTP_PORT", port, 1);
    CHECK_EQ("a slow logger is set", mte_set_log_callback(take_slowly, &slow), 0);
    pthread_create(&other, NULL, come_and_go, &slow);
    transfer_engine_t engine = engine_open();
    pthread_join(other, NULL);
    CHECK("other engines come and go while a line about metrics is written", atomic_load(&slow.told));
    CHECK_EQ("it is taken back", mte_set_log_callback(NULL, NULL), 0);
    destroyTransferEngine(engine);
    unsetenv("MC_TE_METRIC");
    unsetenv("MC_TE_METRIC_HTTP_PORT");
    close(fd);
}

int main(void) {
    struct seen seen = {0}, other = {0};
    harness_begin();
    setenv("MC_LOG_LEVEL", "INFO", 1);
    setenv("MC_RETRY_CNT", "many", 1);
    CHECK_EQ("a logger is set before there is an engine", mte_set_log_callback(take, &seen), 0);
    pid_t early = fork();
    if (early == 0) {
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(2);
        destroyTransferEngine(engine_open());
        _exit(atomic_load(&seen.lines) != 0);
    }
    int ended = -1;
    CHECK("a child of fork has none, also before there is an engine", waitpid(early, &ended, 0) == early && WIFEXITED(ended) && WEXITSTATUS(ended) == 0);
    transfer_engine_t engine = engine_open();
    CHECK("it gets what an engine lives through", atomic_load(&seen.infos) > 0);
    CHECK("and warnings, by their beginning", atomic_load(&seen.names_setting) && atomic_load(&seen.warnings) > 0);
    unsetenv("MC_RETRY_CNT");

    CHECK_EQ("another one is set", mte_set_log_callback(call_back, &other), 0);
    int lines = atomic_load(&seen.lines);
    destroyTransferEngine(engine_open());
    CHECK("it gets the lines", atomic_load(&other.lines) > 0);
    CHECK_EQ("and not the one before", atomic_load(&seen.lines), lines);
    CHECK_EQ("it may not be changed from inside", other.nested, ERR_INVALID_ARGUMENT);

    pid_t pid = fork();
    if (pid == 0) {
        int before = atomic_load(&other.lines);
        if (freopen("/dev/null", "w", stderr) == NULL) _exit(2);
        destroyTransferEngine(engine_open());
        _exit(atomic_load(&other.lines) != before);
    }
    int status = -1;
    CHECK("a child of fork has none", waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 0);

    CHECK_EQ("it is taken back", mte_set_log_callback(NULL, NULL), 0);
    CHECK_EQ("twice", mte_set_log_callback(NULL, NULL), 0);
    lines = atomic_load(&other.lines);
    if (freopen("/dev/null", "w", stderr) == NULL) harness_give_up("standard error");
    destroyTransferEngine(engine_open());
    CHECK_EQ("and gets nothing more", atomic_load(&other.lines), lines);
    CHECK_EQ("every line had a level and a text without an end", atomic_load(&seen.odd), 0);
    taken_back_meanwhile();
    lines_are_written_without_locks();
    destroyTransferEngine(engine);
    return harness_finish();
}
