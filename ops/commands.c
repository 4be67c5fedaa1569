/*
 * The table of commands.
 */
#include "command.h"
#include "ops_private.h"

const struct command *const commands[] = {
    &command_run, &command_health, &command_status, &command_setup_db, &command_settings, &command_lifecycle, NULL};
