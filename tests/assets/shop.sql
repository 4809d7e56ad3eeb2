-- A small shop. Keys made at different sites never meet: they begin with the time, in milliseconds as 12 hexadecimal
-- digits, so that they sort by it, and go on at random.
PRAGMA journal_mode = WAL;

CREATE TABLE accounts (
  id TEXT PRIMARY KEY NOT NULL,
  owner TEXT NOT NULL,
  email TEXT UNIQUE,
  balance INTEGER NOT NULL DEFAULT 0,
  photo BLOB
);
CREATE TABLE articles (
  id TEXT PRIMARY KEY NOT NULL,
  title TEXT NOT NULL,
  price REAL,
  stock INTEGER
);
CREATE TABLE orders (
  id TEXT PRIMARY KEY NOT NULL,
  site TEXT NOT NULL,
  account TEXT REFERENCES accounts (id),
  note TEXT
);
CREATE TABLE order_items (
  order_id TEXT NOT NULL REFERENCES orders (id) ON DELETE CASCADE,
  line INTEGER NOT NULL,
  article TEXT NOT NULL REFERENCES articles (id),
  quantity INTEGER NOT NULL CHECK (quantity > 0),
  PRIMARY KEY (order_id, line)
) WITHOUT ROWID;
CREATE INDEX order_items_by_article ON order_items (article);
CREATE TABLE "gift ""cards""" (
  series TEXT NOT NULL COLLATE NOCASE,
  "card no." BLOB NOT NULL,
  "worth (€)" REAL,
  "from" TEXT,
  message,
  PRIMARY KEY (series, "card no.")
);

INSERT INTO accounts (id, owner, balance) VALUES
  ('00000000000100000000000000000000', 'ada', 120),
  ('00000000000200000000000000000000', 'grace', 80);
INSERT INTO articles (id, title, price, stock) VALUES
  ('cups', 'Six cups', 24.5, 60), ('kettle', 'A kettle', 39.9, 12), ('teapot', 'A teapot', 31, 20);
INSERT INTO orders (id, site) VALUES
  ('00000000000100000000000000000000', 'east'),
  ('00000000000200000000000000000000', 'west'),
  ('00000000000300000000000000000000', 'east');
INSERT INTO order_items (order_id, line, article, quantity) VALUES
  ('00000000000100000000000000000000', 1, 'teapot', 1),
  ('00000000000200000000000000000000', 1, 'cups', 6),
  ('00000000000300000000000000000000', 1, 'kettle', 1);
