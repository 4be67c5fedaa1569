/*
 * The table of commands.
 */
#include "command.h"
#include "ops_private.h"

/* clang-format off: one a line */
const struct command *const commands[] = {
    &command_run,
    &command_health,
    &command_status,
    &command_jobs_cancel,
    &command_jobs_retry,
    &command_jobs_requeue,
    &command_check,
    &command_image_save,
    &command_image_verify,
    &command_image_restore,
    &command_image_status,
    &command_jobs_list,
    &command_jobs_show,
    &command_jobs_logs,
    &command_jobs_cancel,
    &command_jobs_retry,
    &command_jobs_requeue,
    &command_setup_db,
    &command_settings,
    &command_lifecycle,
    &command_manual,
    &command_completion,
    NULL,
};
/* clang-format on */
