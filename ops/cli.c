typedef int qfc_nothing_yet;
