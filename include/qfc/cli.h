/*
 * The command line.
 */
#pragma once

/* Runs the command that the arguments name; returns the exit code. */
int qfc_cli(int argc, char **argv);
