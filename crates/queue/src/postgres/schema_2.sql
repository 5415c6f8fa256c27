CREATE TABLE gaffer.outbox (source TEXT PRIMARY KEY, ids TEXT NOT NULL);
