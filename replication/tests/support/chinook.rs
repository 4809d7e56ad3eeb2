//! A shop for music in the shape of the Chinook sample database: 11 tables, one with a composite key, one that refers to
//! itself. The data is made here.

use rusqlite::{Connection, Result};

/// The tables and their indexes.
pub const SCHEMA: &str = "
CREATE TABLE Artist(ArtistId INTEGER NOT NULL PRIMARY KEY, Name NVARCHAR(120));
CREATE TABLE Genre(GenreId INTEGER NOT NULL PRIMARY KEY, Name NVARCHAR(120));
CREATE TABLE MediaType(MediaTypeId INTEGER NOT NULL PRIMARY KEY, Name NVARCHAR(120));
CREATE TABLE Playlist(PlaylistId INTEGER NOT NULL PRIMARY KEY, Name NVARCHAR(120));
CREATE TABLE Album(AlbumId INTEGER NOT NULL PRIMARY KEY, Title NVARCHAR(160) NOT NULL,
  ArtistId INTEGER NOT NULL REFERENCES Artist(ArtistId));
CREATE TABLE Employee(EmployeeId INTEGER NOT NULL PRIMARY KEY, LastName NVARCHAR(20) NOT NULL, FirstName NVARCHAR(20) NOT NULL,
  Title NVARCHAR(30), ReportsTo INTEGER REFERENCES Employee(EmployeeId), BirthDate DATETIME, HireDate DATETIME,
  Address NVARCHAR(70), City NVARCHAR(40), State NVARCHAR(40), Country NVARCHAR(40), PostalCode NVARCHAR(10),
  Phone NVARCHAR(24), Fax NVARCHAR(24), Email NVARCHAR(60));
CREATE TABLE Customer(CustomerId INTEGER NOT NULL PRIMARY KEY, FirstName NVARCHAR(40) NOT NULL, LastName NVARCHAR(20) NOT NULL,
  Company NVARCHAR(80), Address NVARCHAR(70), City NVARCHAR(40), State NVARCHAR(40), Country NVARCHAR(40),
  PostalCode NVARCHAR(10), Phone NVARCHAR(24), Fax NVARCHAR(24), Email NVARCHAR(60) NOT NULL,
  SupportRepId INTEGER REFERENCES Employee(EmployeeId));
CREATE TABLE Track(TrackId INTEGER NOT NULL PRIMARY KEY, Name NVARCHAR(200) NOT NULL, AlbumId INTEGER REFERENCES Album(AlbumId),
  MediaTypeId INTEGER NOT NULL REFERENCES MediaType(MediaTypeId), GenreId INTEGER REFERENCES Genre(GenreId),
  Composer NVARCHAR(220), Milliseconds INTEGER NOT NULL, Bytes INTEGER, UnitPrice NUMERIC(10,2) NOT NULL);
CREATE TABLE Invoice(InvoiceId INTEGER NOT NULL PRIMARY KEY, CustomerId INTEGER NOT NULL REFERENCES Customer(CustomerId),
  InvoiceDate DATETIME NOT NULL, BillingAddress NVARCHAR(70), BillingCity NVARCHAR(40), BillingState NVARCHAR(40),
  BillingCountry NVARCHAR(40), BillingPostalCode NVARCHAR(10), Total NUMERIC(10,2) NOT NULL);
CREATE TABLE InvoiceLine(InvoiceLineId INTEGER NOT NULL PRIMARY KEY, InvoiceId INTEGER NOT NULL REFERENCES Invoice(InvoiceId),
  TrackId INTEGER NOT NULL REFERENCES Track(TrackId), UnitPrice NUMERIC(10,2) NOT NULL, Quantity INTEGER NOT NULL);
CREATE TABLE PlaylistTrack(PlaylistId INTEGER NOT NULL REFERENCES Playlist(PlaylistId),
  TrackId INTEGER NOT NULL REFERENCES Track(TrackId), PRIMARY KEY(PlaylistId, TrackId));
CREATE INDEX AlbumArtist ON Album(ArtistId);
CREATE INDEX CustomerSupport ON Customer(SupportRepId);
CREATE INDEX EmployeeManager ON Employee(ReportsTo);
CREATE INDEX InvoiceCustomer ON Invoice(CustomerId);
CREATE INDEX LineInvoice ON InvoiceLine(InvoiceId);
CREATE INDEX LineTrack ON InvoiceLine(TrackId);
CREATE INDEX PlaylistOfTrack ON PlaylistTrack(TrackId);
CREATE INDEX TrackAlbum ON Track(AlbumId);
CREATE INDEX TrackGenre ON Track(GenreId);
CREATE INDEX TrackMedia ON Track(MediaTypeId);
";

/// Rows of each table at scale 1, parents first: as many as in the original. Those of the first group do not grow.
const FIXED: [(&str, u32, &str); 4] = [
    ("Genre", 25, "i, 'Genre ' || i"),
    ("MediaType", 5, "i, 'Medium ' || i"),
    ("Playlist", 18, "i, 'Playlist ' || i"),
    (
        "Employee",
        8,
        "i, 'Last' || i, 'First' || i, iif(i = 1, 'General Manager', 'Agent'), nullif(1 + (i - 2) / 3, i), '1962-02-18',
         '2002-08-14', i || ' Street', 'Calgary', 'AB', 'Canada', 'T2P 2T3', '+1 (403) 262-' || i, NULL, 'e' || i || '@shop.test'",
    ),
];
const GROWING: [(&str, u32, &str); 7] = [
    ("Artist", 275, "i, 'Artist ' || i"),
    ("Album", 347, "i, 'Album ' || i, 1 + i * 7 % (275 * :scale)"),
    (
        "Customer",
        59,
        "i, 'First' || i, 'Last' || i, iif(i % 5, NULL, 'Company ' || i), i || ' Avenue', 'City ' || i % 50, NULL,
         'Country ' || i % 24, 10000 + i, '+49 ' || i, NULL, 'c' || i || '@example.test', 3 + i % 3",
    ),
    (
        "Track",
        3503,
        "i, 'Track ' || i, 1 + i % (347 * :scale), 1 + i % 5, 1 + i % 25, iif(i % 4, 'Composer ' || i % 800, NULL),
         60000 + i * 7919 % 500000, 1000000 + i * 104729 % 20000000, iif(i % 16, 0.99, 1.99)",
    ),
    (
        "Invoice",
        412,
        "i, 1 + i * 5 % (59 * :scale), datetime(1230768000 + i * 381000, 'unixepoch'), i || ' Avenue', 'City ' || i % 50, NULL,
         'Country ' || i % 24, 10000 + i, 0.99 * (1 + i % 14)",
    ),
    ("InvoiceLine", 2240, "i, 1 + i % (412 * :scale), 1 + i * 13 % (3503 * :scale), iif(i % 16, 0.99, 1.99), 1"),
    ("PlaylistTrack", 8715, "1 + i % 18, 1 + i / 18 * 3 % (3503 * :scale)"),
];

/// Puts `scale` times the original's 15,600 rows into empty tables.
///
/// # Errors
/// Whatever SQLite says.
pub fn fill(database: &Connection, scale: u32) -> Result<()> {
    let fixed = FIXED.map(|(table, rows, values)| (table, rows, values));
    let growing = GROWING.map(|(table, rows, values)| (table, rows * scale, values));
    for (table, rows, values) in fixed.into_iter().chain(growing) {
        let values = values.replace(":scale", &scale.to_string());
        database.execute(
            &format!(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
                 INSERT INTO {table} SELECT {values} FROM n"
            ),
            [rows],
        )?;
    }
    Ok(())
}
