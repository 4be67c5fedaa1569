/*
 * check: can the settings be used?
 */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Ours; what begins so and is none of them is a slip of somebody's pen, which would be noticed by nobody. */
#define OWN_PREFIX "QFC_WORKER_"

static const char *environment(const char *name)
{
    return getenv(name);
}

static bool is_setting(const char *name, size_t length)
{
    size_t count;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    for (size_t i = 0; i < count; i++)
        if (strlen(infos[i].name) == length && strncmp(infos[i].name, name, length) == 0)
            return true;
    return false;
}

static void find_strangers(struct look *look)
{
    for (char **variable = environ; *variable; variable++) {
        size_t length = strcspn(*variable, "=");
        if (strncmp(*variable, OWN_PREFIX, sizeof OWN_PREFIX - 1) != 0 || is_setting(*variable, length))
            continue;
        check_found(look, CHECK_WARNING, "there is no setting %.*s: it changes nothing", (int)length, *variable);
        check_advise(look, "compare it with `qfc-worker settings`");
    }
}

static size_t count_set(void)
{
    size_t count, set = 0;
    const struct qfc_setting_info *infos = qfc_settings_table(&count);
    for (size_t i = 0; i < count; i++) {
        const char *value = getenv(infos[i].name);
        set += value && *value;
    }
    return set;
}

void check_settings(struct look *look)
{
    struct qfc_error error = QFC_NO_ERROR;
    struct qfc_settings settings;
    if (qfc_settings_read(environment, &settings, &error) < 0) {
        check_found(look, CHECK_FAILED, "%s", error.message);
        check_advise(look, "correct that variable, for compose in .env, and run this again");
        return;
    }
    qfc_settings_free(&look->settings);
    look->settings = settings;
    check_found(look, CHECK_OK, "%zu are set, the others have their defaults", count_set());
    find_strangers(look);
}
